// Painting a mask over a picture: white where something new is made, as large as the picture. It ends as a file in the
// mask's own component, as if it had been dropped there.
import { place, scopeOf } from "./form.js";

const LARGEST = 8192;

export function giveFile(component, file) { // as if a person had dropped it there
  const input = component.querySelector("input[type=file]");
  const held = new DataTransfer();
  held.items.add(file);
  input.files = held.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

async function open(button) {
  const scope = scopeOf(button), words = JSON.parse(button.dataset.words);
  const source = place(scope, button.dataset.over)?.querySelector("img");
  const target = place(scope, button.dataset.paint);
  if (!source || !target) return;
  const picture = await opened(source.src);
  if (!picture) return;
  const size = [Math.min(LARGEST, picture.naturalWidth), Math.min(LARGEST, picture.naturalHeight)];
  const { dialog, canvas, tools } = build(words, picture, size);
  dialog.setAttribute("aria-label", button.textContent.replace("✎", "").trim());
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const ink = getComputedStyle(document.body).getPropertyValue("--accent").trim();
  const known = target.querySelector("img");
  if (known) await begin(pen, known.src, size, ink);
  connect(dialog, canvas, pen, tools, ink, async () => {
    const file = await maskOf(canvas);
    if (known) target.querySelector("button[aria-label]:not([aria-dropeffect])")?.click();
    setTimeout(() => giveFile(target, file), known ? 60 : 0);
  });
  (document.querySelector(".gradio-container") || document.body).append(dialog); // where the page's buttons have their looks
  dialog.showModal();
}

async function opened(source) { // nothing, where it is no picture that opens
  const picture = Object.assign(new Image(), { src: source, alt: "" });
  return picture.decode().then(() => picture, () => null);
}

function build(words, picture, [width, height]) {
  const dialog = document.createElement("dialog");
  dialog.className = "painter";
  const button = (name, kind = "") =>
    `<button type="button" class="b small ${kind}" data-tool="${name}"></button>`;
  dialog.innerHTML = `<div class="canvas-box"><canvas></canvas></div><div class="painter-tools">
    <label><span data-tool-word="brush"></span><input type="range" min="1" max="100" value="18" data-tool="size"></label>
    ${button("erase")}${button("undo")}${button("invert")}${button("clear")}<span class="spring"></span>
    ${button("drop")}${button("done", "primary")}</div>`;
  const tools = Object.fromEntries([...dialog.querySelectorAll("[data-tool]")].map((one) => [one.dataset.tool, one]));
  for (const [name, tool] of Object.entries(tools)) if (words[name]) tool.textContent = words[name];
  dialog.querySelector("[data-tool-word]").textContent = words.brush;
  tools.size.setAttribute("aria-label", words.brush);
  const canvas = dialog.querySelector("canvas");
  [canvas.width, canvas.height] = [width, height];
  dialog.querySelector(".canvas-box").prepend(picture);
  dialog.style.setProperty("--shape", width / height);
  return { dialog, canvas, tools };
}

async function begin(pen, source, [width, height], ink) { // with the mask that is there: white becomes ink
  const mask = await opened(source);
  if (!mask) return;
  pen.drawImage(mask, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at] > 127 ? 255 : 0;
  pen.putImageData(pixels, 0, 0);
  colour(pen, ink);
}

function colour(pen, ink) {
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = ink;
  pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  pen.globalCompositeOperation = "source-over";
}

function connect(dialog, canvas, pen, tools, ink, done) {
  const past = [];
  let last = null, erases = false;
  const keep = () => { past.push(pen.getImageData(0, 0, canvas.width, canvas.height)); if (past.length > 12) past.shift(); };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  };
  const draw = (event) => {
    const here = at(event);
    pen.globalCompositeOperation = erases || event.buttons === 2 ? "destination-out" : "source-over";
    Object.assign(pen, { strokeStyle: ink, lineCap: "round", lineJoin: "round" });
    pen.lineWidth = Math.max(1, Math.max(canvas.width, canvas.height) * Number(tools.size.value) / 250);
    pen.beginPath();
    pen.moveTo(...(last || here));
    pen.lineTo(...here);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    last = here;
  };
  canvas.oncontextmenu = (event) => event.preventDefault();
  canvas.onpointerdown = (event) => { keep(); canvas.setPointerCapture(event.pointerId); last = null; draw(event); };
  canvas.onpointermove = (event) => { if (event.buttons) for (const one of event.getCoalescedEvents?.() || [event]) draw(one); };
  tools.erase.onclick = () => { erases = !erases; tools.erase.classList.toggle("on", erases); };
  tools.undo.onclick = () => { if (past.length) pen.putImageData(past.pop(), 0, 0); };
  tools.clear.onclick = () => { keep(); pen.clearRect(0, 0, canvas.width, canvas.height); };
  tools.invert.onclick = () => {
    keep();
    pen.globalCompositeOperation = "xor";
    pen.fillStyle = ink;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "source-over";
  };
  tools.drop.onclick = () => dialog.close();
  tools.done.onclick = () => { done(); dialog.close(); };
  dialog.onclose = () => dialog.remove();
  dialog.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) tools.undo.click();
    if (event.key === "Enter" && event.target.tagName !== "BUTTON") tools.done.click();
  };
}

async function maskOf(canvas) { // black and white, nothing between
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [canvas.width, canvas.height];
  const pen = sheet.getContext("2d");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.fill(pixels.data[at + 3] > 127 ? 255 : 0, at, at + 3);
    pixels.data[at + 3] = 255;
  }
  pen.putImageData(pixels, 0, 0);
  return new File([await new Promise((got) => sheet.toBlob(got, "image/png"))], "mask.png", { type: "image/png" });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-paint]");
  if (button) open(button);
});
