// What stays when the page is opened anew in this browser tab, also in the other language: which tab was open, what was
// being written, what the forms hold, and which folds are open. It goes with the browser tab. Texts are read and written
// here, at once; all else is written down by the server (staying.py), but for what was chosen a moment ago (held.js),
// and handed back to it when the page shows what it begins with.
import * as folds from "./folds.js";
import { enter, put } from "./form.js";
import { pathOf, shownForms } from "./held.js";

const KEPT = "studio-here", HELD_TICKS = 3, PATIENCE_MS = 10_000;
const boxes = () => [...document.querySelectorAll("#chat-box textarea, .main-box textarea")];
const kept = JSON.parse(sessionStorage.getItem(KEPT) || "{}");
const left = kept.written || {}; // what no box has shown yet: a tab that nobody looked at has none
const forms = kept.forms || {};
const held = new Map();
let tab = kept.tab;
folds.begin(kept.folds || []);
let handed = 0; // when the forms were handed over
let shownAgain = !Object.keys(forms).length;

function nameOf(box) { // the third prompt of the tab for pictures, say: each family has its own
  const tab = box.closest("[id^=tab-]");
  return `${tab?.id}/${tab ? [...tab.querySelectorAll("textarea")].filter((one) => boxes().includes(one)).indexOf(box) : 0}`;
}

function formsNow() { // a tab that nobody looked at since holds what it held
  if (!shownAgain) return forms;
  const now = { ...forms };
  for (const box of document.querySelectorAll("[id^=act-kept-] :is(textarea, input)")) {
    if (box.value) now[box.closest("[id^=act-kept-]").id.slice("act-kept-".length)] = JSON.parse(box.value);
  }
  shownForms(now);
  const chat = document.querySelector("#chat-box");
  if (chat) {
    const files = [...chat.querySelectorAll("img")].map(pathOf).filter(Boolean);
    now.text = { ...now.text, files, text: chat.querySelector("textarea")?.value };
  }
  return now;
}

function keep() {
  const written = Object.fromEntries(boxes().filter((box) => box.value).map((box) => [nameOf(box), box.value]));
  const now = tab ?? document.querySelector("#tabs [role=tab].selected")?.dataset.tabId ?? kept.tab; // if it came so far
  sessionStorage.setItem(KEPT, JSON.stringify({ tab: now, written: { ...left, ...written }, forms: formsNow(), folds: folds.openFolds(kept.folds || []) }));
}
addEventListener("pagehide", keep);

function handOver() {
  const opened = document.querySelector("#act-opened :is(textarea, input)")?.value;
  if (!handed && opened) {
    handed = performance.now();
    enter(document.querySelector("#act-back :is(textarea, input)"), JSON.stringify(forms));
  }
  shownAgain = opened === "back" || (handed && performance.now() - handed > PATIENCE_MS);
}

function stays(name, is) { // Gradio draws its pieces before they listen, and writes their first values once more
  held.set(name, is ? (held.get(name) || 0) + 1 : 0);
  return held.get(name) > HELD_TICKS;
}

function back() {
  const button = tab && document.getElementById(`tab-${tab}-button`);
  if (!button) return;
  const is = button.classList.contains("selected");
  if (!is) button.click();
  if (stays("tab", is)) tab = null;
}

function written(box) {
  const name = nameOf(box), text = left[name];
  if (text === undefined || !box.getClientRects().length) return;
  const is = box.value === text, other = box.value && !is; // the person was quicker
  if (!is && !other) put(box, text);
  if (other || stays(name, is)) delete left[name];
}

addEventListener("click", (event) => { if (event.isTrusted && event.target.closest("[role=tab]")) tab = null; }, true);

const timer = setInterval(() => {
  back();
  boxes().forEach(written);
  if (!shownAgain) handOver();
  const unfolded = shownAgain && folds.unfold(stays);
  if (unfolded && !tab && !Object.keys(left).length) clearInterval(timer);
}, 100);
