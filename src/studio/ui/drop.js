// A file may be dropped anywhere: it goes where the shown tab takes such a file.
import { giveFile } from "./painter.js";
import { toast } from "./toast.js";

const seen = (element) => element.getClientRects().length > 0;
const takes = (input, file) => {
  const kinds = (input.accept || "*").split(",").map((kind) => kind.trim());
  return kinds.some((kind) => kind === "*" || kind === file.type || (kind.endsWith("/*") && file.type.startsWith(kind.slice(0, -1)))
    || (kind.startsWith(".") && file.name.toLowerCase().endsWith(kind.toLowerCase())));
};

function placeFor(file) {
  const places = [...document.querySelectorAll(".drop, #chat-box")].filter(seen);
  const open = places.filter((one) => { const input = one.querySelector("input[type=file]"); return input && takes(input, file); });
  return open.find((one) => !one.querySelector("img, video, audio")) || open[0];
}

const files = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
let leaving;
document.addEventListener("dragover", (event) => {
  if (!files(event)) return;
  event.preventDefault();
  document.body.classList.add("dragging");
  clearTimeout(leaving);
  leaving = setTimeout(() => document.body.classList.remove("dragging"), 300);
});

function refuse(file) {
  toast(document.querySelector("[data-no-place]").dataset.noPlace.replace("{name}", file.name), true);
}

function take(file) {
  const place = file && placeFor(file);
  if (!place) return false;
  giveFile(place, file);
  place.scrollIntoView({ block: "nearest", behavior: "smooth" });
  return true;
}

document.addEventListener("paste", (event) => {
  if (event.target.closest("#chat-box, dialog")) return;
  if (event.clipboardData?.files.length && take(event.clipboardData.files[0])) event.preventDefault();
});

addEventListener("drop", (event) => { // what a place of Gradio's does not take, it refuses in English
  const box = event.target.closest?.("[aria-dropeffect], #chat-box")?.closest(".drop, #chat-box"), file = event.dataTransfer?.files[0];
  const input = box?.querySelector("input[type=file]");
  if (!file || !input || takes(input, file)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  document.body.classList.remove("dragging");
  refuse(file);
}, true);

document.addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (!files(event) || event.target.closest("[aria-dropeffect], #chat-box, dialog")) return; // Gradio's own places
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (!take(file) && file) refuse(file);
});
