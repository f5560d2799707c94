// Pickers of a form: shapes, seeds, adapters. Each reads and writes the plain component of its parameter, found by the
// class p-NAME inside .family, so that values set by the server (a restored recipe) are shown as well.

export const scopeOf = (element) => element.closest(".family") || element.closest(".tabitem") || document;
export const place = (scope, name) => scope.querySelector(`.p-${CSS.escape(name)}`);
export const boxOf = (scope, name) => place(scope, name)?.querySelector("textarea, input[type=number], input:not([type=range], [type=file])");

export function put(box, value) { // as if a person had typed it
  if (!box || box.value === String(value)) return;
  box.value = value;
  for (const name of ["input", "change", "blur"]) box.dispatchEvent(new Event(name, { bubbles: true }));
}

export function enter(box, text) { // into a hidden box, for a handler of the page
  box.value = text;
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  box.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", bubbles: true }));
}

// -- shapes -----------------------------------------------------------------------------------------------------
function shapeChosen(button) {
  const scope = scopeOf(button), wanted = button.dataset.shape;
  const row = scope.querySelector(".own-size");
  row.classList.toggle("open", wanted === "own");
  if (wanted === "own") { row.querySelector("input, textarea")?.focus(); return; }
  const [width, height] = wanted ? wanted.split("x") : ["", ""];
  put(boxOf(scope, "width"), width);
  put(boxOf(scope, "height"), height);
}

function showShape(picker) {
  const scope = scopeOf(picker), row = scope.querySelector(".own-size");
  const [width, height] = [boxOf(scope, "width")?.value ?? "", boxOf(scope, "height")?.value ?? ""];
  const here = width === "" && height === "" ? "" : `${width}x${height}`;
  const buttons = [...picker.querySelectorAll(".shape")];
  if (!buttons.some((one) => one.dataset.shape === here)) row.classList.add("open");
  const own = row.classList.contains("open");
  for (const one of buttons) {
    const on = own ? one.dataset.shape === "own" : one.dataset.shape === here;
    if (on !== one.classList.contains("on")) { one.classList.toggle("on", on); one.setAttribute("aria-pressed", on); }
  }
}

// -- seeds ------------------------------------------------------------------------------------------------------
function seedChosen(button) {
  const box = boxOf(scopeOf(button), button.dataset.field);
  const last = button.closest(".tabitem")?.querySelector(".shown [data-seed-made]");
  put(box, button.dataset.seed === "dice" ? "" : last?.dataset.seedMade ?? box.value);
}

// -- adapters: lines of name:weight -----------------------------------------------------------------------------
const parts = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
  const [name, weight] = line.split(":");
  return { name, weight: weight ?? "1" };
});

function element(tag, values, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

function showAdapters(picker) {
  const box = boxOf(scopeOf(picker), picker.dataset.adapters);
  if (!box || picker.drawn === box.value + picker.dataset.offers) return;
  picker.drawn = box.value + picker.dataset.offers;
  const offers = JSON.parse(picker.dataset.offers), words = JSON.parse(picker.dataset.words), chosen = parts(box.value);
  const write = () => {
    const text = chosen.map(({ name, weight }) => `${name}:${weight}`).join("\n");
    picker.drawn = text + picker.dataset.offers;
    put(box, text);
  };
  const redraw = () => { write(); picker.drawn = null; showAdapters(picker); };
  const rows = chosen.map((one) => {
    const number = element("input", { type: "number", min: -4, max: 4, step: 0.05, value: one.weight, ariaLabel: one.name });
    const slide = element("input", { type: "range", min: -1, max: 2, step: 0.05, value: one.weight, ariaLabel: one.name });
    slide.oninput = () => { number.value = one.weight = slide.value; write(); };
    number.oninput = () => { if (number.value !== "") { slide.value = one.weight = number.value; write(); } };
    const drop = element("button", { type: "button", className: "b icon", textContent: "×", title: words.drop });
    drop.onclick = () => { chosen.splice(chosen.indexOf(one), 1); redraw(); };
    return element("div", { className: "adapter" }, element("span", { textContent: one.name, title: one.name }), slide, number, drop);
  });
  const free = offers.filter((name) => !chosen.some((one) => one.name === name));
  if (free.length) {
    const add = element("select", { ariaLabel: words.add }, new Option(`+ ${words.add}`, ""), ...free.map((name) => new Option(name, name)));
    add.onchange = () => { chosen.push({ name: add.value, weight: "1" }); redraw(); };
    rows.push(add);
  }
  picker.replaceChildren(...rows);
}

// -- what only makes sense with a picture -------------------------------------------------------------------------
function showMask(box) {
  const over = [...box.classList].find((name) => name.startsWith("over-"))?.slice(5);
  const scope = scopeOf(box), picture = place(scope, over)?.querySelector("img");
  const opens = picture && !(picture.complete && !picture.naturalWidth) && !scope.querySelector(`[data-refused="${over}"]`);
  box.querySelector("[data-paint]").hidden = !opens;
  box.classList.toggle("waits", !opens && !box.querySelector("img"));
}

// -- what it would take, asked anew when models were loaded or unloaded meanwhile ---------------------------------
const plannedWith = new Map(); // tab -> what was loaded when its forecast was made

function followLoaded() {
  const held = document.querySelector(".pill")?.dataset.held;
  for (const act of held === undefined ? [] : document.querySelectorAll("[id^=act-plan-]")) {
    const name = act.id.slice("act-plan-".length);
    if (!document.getElementById(`tab-${name}`)?.getClientRects().length) continue;
    if (plannedWith.has(name) && plannedWith.get(name) !== held) enter(act.querySelector("textarea, input"), held);
    plannedWith.set(name, held);
  }
}

document.addEventListener("click", (event) => {
  const shape = event.target.closest("[data-shape]"), seed = event.target.closest("[data-seed]");
  if (shape) { shapeChosen(shape); showShape(shape.closest(".shapes")); }
  else if (seed) seedChosen(seed);
  else if (event.target.closest(".reset")) scopeOf(event.target).querySelector(".own-size.open")?.classList.remove("open");
});

setInterval(() => {
  if (document.hidden) return;
  followLoaded();
  for (const one of document.querySelectorAll(".shapes, .adapters, .mask-box")) {
    if (!one.parentElement.getClientRects().length) continue;
    if (one.classList.contains("shapes")) showShape(one);
    else if (one.classList.contains("adapters")) showAdapters(one);
    else showMask(one);
  }
}, 200);
