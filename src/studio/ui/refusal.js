// A refused request names the field that it is about: it is marked and brought into view, until it is changed.
import { place } from "./form.js";

const TRIES = 30, SETTLED = 3; // a fold draws its fields a moment after it was opened
const seen = new WeakSet();
const visible = (one) => Boolean(one?.getClientRects().length);
let marked = null;

function shownFor(form, name) { // the field itself, or the picker over it
  const field = place(form, name);
  if (visible(field)) return field;
  return [...form.querySelectorAll(`[data-adapters="${name}"], section-line[data-field="${name}"]`)].find(visible)
    ?.closest(".picker-box");
}

function open(form, name) {
  const field = place(form, name);
  field?.closest(".own-size")?.classList.add("open");
  const folds = [form, ...form.querySelectorAll(".fold")].filter((one) => one.matches(".fold:not(.grid-fold)"));
  for (const fold of field?.closest(".fold") ? [field.closest(".fold")] : folds) {
    const button = fold.querySelector("button");
    if (button && !button.classList.contains("open")) button.click();
  }
}

function state(form, name) {
  const values = [...(place(form, name)?.querySelectorAll("input, textarea") ?? [])].map((one) => [one.value, one.checked]);
  return JSON.stringify([values, [...(place(form, name)?.querySelectorAll("img, audio, .file") ?? [])].length]);
}

function look(name, words, end, tries = 0, calm = 0) {
  const form = [...document.querySelectorAll("[class*='form-of-']")].find(visible);
  if (!form || tries > TRIES) return;
  const field = shownFor(form, name);
  if (!field && !tries) open(form, name);
  if (field && (!tries || calm >= SETTLED)) { mark(form, name, field, words); end(); } // said at its place, not over the page
  else setTimeout(() => look(name, words, end, tries + 1, field ? calm + 1 : 0), 100);
}

function mark(form, name, field, words) {
  clear();
  const told = Object.assign(document.createElement("p"), { className: "refusal", id: "refusal", textContent: words });
  const boxes = [...field.querySelectorAll("input:not([type=file]), textarea, select, button[aria-dropeffect], .drop button")];
  field.setAttribute("data-marked", "");
  field.append(told);
  for (const box of boxes) {
    box.setAttribute("aria-invalid", "true");
    box.setAttribute("aria-describedby", told.id);
  }
  marked = { form, name, field, told, boxes, was: state(form, name) };
  reveal(field);
  for (const later of [500, 1000]) setTimeout(() => { if (marked?.field === field) reveal(field); }, later); // over a scroll to the result
  boxes.find(visible)?.focus({ preventScroll: true });
}

function reveal(field) {
  const { top, bottom } = field.getBoundingClientRect();
  const bar = field.closest(".family")?.querySelector(".go-box")?.getBoundingClientRect().top ?? innerHeight; // lies over it
  if (top < 80 || bottom > Math.min(bar, innerHeight) - 8) field.scrollIntoView({ block: "center" });
}

function clear() {
  if (!marked) return;
  marked.field.removeAttribute("data-marked");
  marked.told.remove();
  for (const box of marked.boxes) for (const name of ["aria-invalid", "aria-describedby"]) box.removeAttribute(name);
  marked = null;
}

document.addEventListener("click", (event) => { if (event.target.closest(".go, .grid-go")) clear(); });

setInterval(() => {
  for (const one of document.querySelectorAll("[class^=refused-]")) {
    if (seen.has(one)) continue;
    seen.add(one);
    const said = one.closest(".toast-body");
    look(one.className.slice("refused-".length), one.parentElement.textContent.trim(), () => said?.querySelector(".toast-close")?.click());
  }
  if (marked && (!marked.field.isConnected || state(marked.form, marked.name) !== marked.was)) clear();
}, 150);
