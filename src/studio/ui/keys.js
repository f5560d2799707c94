// What Gradio has no component for: pieces that keep themselves up to date, the buttons in them, keys, light and dark.
// No framework and nothing from outside; the content policy forbids both.
import { enter } from "./form.js";
import * as focus from "./focus.js";
import { toast } from "./toast.js";
import "./painter.js";
import "./drop.js";
import { playFilms } from "./film.js";
import "./refusal.js";
import "./limits.js";
import "./stay.js";
import "./spoken.js";

// A browser that came while the page was being made has the styles of Gradio's pieces already; those of the whole page
// come after them then, and would win.
for (const late of [...document.querySelectorAll("body > :is(style, link[rel=stylesheet])")].reverse()) {
  const first = late.cloneNode(true);
  first.onload = () => late.remove();
  document.head.prepend(first);
}

const root = document.documentElement;
const opened = new Set(); // folds that the person opened: they stay open when their piece is drawn anew

// -- light and dark ---------------------------------------------------------------------------------------------
const dark = () => document.body.classList.contains("dark");
function paint(mode) {
  document.body.classList.toggle("dark", mode === "dark");
  root.style.colorScheme = mode;
}
const system = matchMedia("(prefers-color-scheme: dark)");
const wanted = () => localStorage.getItem("studio-theme") || (system.matches ? "dark" : "light");
paint(wanted());
system.addEventListener("change", () => paint(wanted()));
new MutationObserver(() => { if (dark() !== (wanted() === "dark")) paint(wanted()); })
  .observe(document.body, { attributes: true, attributeFilter: ["class"] });

// -- live pieces ------------------------------------------------------------------------------------------------
const due = new WeakMap(); // element -> {at, tag, src, busy}

function visible(element) {
  return !document.hidden && element.isConnected && element.getClientRects().length > 0;
}

async function refresh(element) {
  const known = due.get(element) || { tag: "" };
  if (known.src !== element.dataset.src) { known.tag = ""; known.ended = known.seen = false; }
  Object.assign(known, { src: element.dataset.src, busy: true });
  due.set(element, known);
  let next = 2000;
  try {
    const answer = await fetch(known.src, { headers: { "X-Tag": known.tag } });
    next = Number(answer.headers.get("X-Next-Ms")) || 3000;
    gone(answer.status === 401 ? "locked" : "");
    if (answer.status === 200 && known.src === element.dataset.src) {
      draw(element, await answer.text(), known.seen);
      known.seen = true;
      known.tag = answer.headers.get("X-Tag") || "";
    }
  } catch { next = 2000; gone("lost"); }
  known.busy = false;
  known.at = performance.now() + next;
}

function gone(how) { // the page says why nothing new comes
  if (how) document.body.append(...document.querySelectorAll(".top .no-server")); // above all else
  for (const name of ["lost", "locked"]) document.body.classList.toggle(name, name === how);
}

function draw(element, html, seen) {
  const bottom = element.classList.contains("scroll") ? scroller(element) : null;
  const stood = focus.before(element);
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const begun = fresh.content.querySelector(".turn.writing")?.dataset.key; // an answer that was asked for is looked at
  const asked = begun && !element.querySelector(`[data-key="${begun}"]`);
  const follow = bottom && (asked || bottom.scrollHeight - bottom.scrollTop - bottom.clientHeight < 120);
  const [was, now] = [element.querySelector("[data-keyed]"), fresh.content.querySelector("[data-keyed]")];
  if (was && now && was.className === now.className && was.parentElement === element) merge(was, now, seen && "steady" in now.dataset);
  else element.replaceChildren(fresh.content);
  for (const fold of element.querySelectorAll("details[data-fold]")) if (opened.has(fold.dataset.fold)) fold.open = true;
  focus.after(element, stood);
  playFilms(element);
  if (follow) { const box = scroller(element); if (box !== document.scrollingElement) box.scrollTop = box.scrollHeight; }
  if (element.reveal) { reveal(element.querySelector(".opened")); element.reveal = false; }
}

function reveal(opened) { // what was opened far down a gallery is shown above it
  const place = opened?.getBoundingClientRect();
  if (place && (place.top < 0 || place.top > innerHeight / 2)) opened.scrollIntoView({ block: "start" });
}

// A conversation is opened at its end, and again after another tab was looked at; there it stays when its place grows
// smaller, since a fold is opened below it.
function toEnd(element, known) {
  if (!element.getClientRects().length) { known.ended = false; return; }
  const box = scroller(element), height = box.clientHeight;
  const shrunk = known.ended && height < known.height && box.scrollHeight - box.scrollTop - known.height < 5;
  if (shrunk || (!known.ended && !known.busy && element.childElementCount)) {
    if (box !== document.scrollingElement) box.scrollTop = box.scrollHeight;
    known.ended = true;
  }
  known.height = height;
}

// Keep what did not change: a playing sound, a selection, a picture that is loaded. Steady: what is known keeps its place.
function merge(was, now, steady) {
  const old = new Map([...was.children].map((child) => [child.dataset.key, child]));
  const wanted = [...now.children].map((child) => {
    const same = old.get(child.dataset.key);
    if (!same) return child;
    if (same.dataset.editing) return same;
    if (same.dataset.clips && child.dataset.clips) { // a film goes on playing while it grows
      Object.assign(same.dataset, { clips: child.dataset.clips, words: child.dataset.words });
      return same;
    }
    if (same.source === undefined ? same.outerHTML === child.outerHTML : same.source === child.outerHTML) return same;
    return child;
  });
  if (steady) {
    const places = [...old.keys()], at = (child) => places.indexOf(child.dataset.key);
    const kept = wanted.filter((child) => at(child) >= 0).sort((one, other) => at(one) - at(other));
    wanted.forEach((child, place) => { if (at(child) >= 0) wanted[place] = kept.shift(); });
  }
  for (const attribute of now.attributes) was.setAttribute(attribute.name, attribute.value);
  for (const child of wanted) child.source ??= child.outerHTML;
  for (const child of [...was.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, place) => { if (was.children[place] !== child) was.insertBefore(child, was.children[place] || null); });
}

function scroller(element) {
  for (let box = element; box; box = box.parentElement) {
    if (/(auto|scroll)/.test(getComputedStyle(box).overflowY) && box.scrollHeight > box.clientHeight) return box;
  }
  return document.scrollingElement;
}

setInterval(() => {
  const now = performance.now();
  for (const element of document.querySelectorAll(".live")) {
    const known = due.get(element);
    const fresh = !known || known.src !== element.dataset.src;
    if (!fresh && element.classList.contains("scroll")) toEnd(element, known);
    if (known?.seen && !element.getClientRects().length && element.querySelector("[data-steady]")) {
      Object.assign(known, { seen: false, tag: "" }); // the next visit finds another order
    }
    if (visible(element) || fresh) if (!known?.busy && (fresh || now >= known.at)) refresh(element);
  }
}, 100);

function newest() { // the tab shows what was just asked for, not what was looked at before
  for (const element of document.querySelectorAll(".result .live")) {
    if (!element.getClientRects().length) continue;
    const look = () => { if (!document.querySelector("[data-marked]")) element.scrollIntoView({ behavior: "smooth", block: "start" }); };
    if (innerWidth < 1080) setTimeout(look, 400); // unless it was refused
    const [path, query] = element.dataset.src.split("?");
    const params = new URLSearchParams(query);
    params.delete("job");
    element.dataset.src = `${path}?${params}`;
  }
}

const soon = () => document.querySelectorAll(".live").forEach((one) => { const known = due.get(one); if (known) known.at = 0; });

function ask(element, values, toggle) { // change what a piece shows
  const scope = element.closest(".live") || element.closest(".panel")?.querySelector(".live");
  if (!scope) return;
  scope.reveal = toggle;
  const [path, query] = scope.dataset.src.split("?");
  const params = new URLSearchParams(query);
  for (const [name, value] of new URLSearchParams(values)) {
    params.set(name, toggle && params.get(name) === value ? "" : value);
  }
  scope.dataset.src = `${path}?${params}`;
}

// -- what buttons do --------------------------------------------------------------------------------------------
let count = 0;
function hand(act, values) { // to a handler of the Gradio page
  enter(document.querySelector(`#act-${act} :is(textarea, input)`), JSON.stringify({ ...values, n: ++count }));
  setTimeout(soon, 150);
}

const busy = new WeakSet(); // buttons whose action is not answered yet

async function post(values) { // to our own actions
  const answer = await fetch("studio/do", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values),
  }).catch(() => gone("lost"));
  if (!answer) return;
  const told = await answer.json();
  if (told.error || told.said) toast(told.error || told.said, Boolean(told.error));
  soon();
}

function edit(button) { // a turn becomes a box
  const turn = button.closest(".turn");
  const said = turn.querySelector(".said");
  if (turn.dataset.editing) return;
  turn.dataset.editing = "1";
  const box = document.createElement("textarea");
  box.value = said.textContent;
  const row = document.createElement("div");
  row.className = "tools";
  const save = Object.assign(document.createElement("button"), { className: "b small primary", textContent: turn.dataset.save });
  const drop = Object.assign(document.createElement("button"), { className: "b small", textContent: turn.dataset.drop });
  row.append(save, drop);
  said.hidden = true;
  said.after(box, row);
  box.style.height = `${Math.min(400, box.scrollHeight + 8)}px`;
  box.focus();
  const end = () => { box.remove(); row.remove(); said.hidden = false; delete turn.dataset.editing; };
  const send = () => { hand("chat", { do: "edit", chat: turn.dataset.chat, turn: turn.dataset.turn, text: box.value }); wait(); };
  const wait = () => { save.disabled = true; setTimeout(() => { save.disabled = false; }, 1500); }; // refused, the words stay
  save.onclick = send;
  drop.onclick = end;
  box.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); end(); }
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); if (!save.disabled) send(); }
  };
}

function fill(text, near) { // a suggestion into the box of the conversation, or into the main one of the tab it stands in
  const boxes = near?.closest("[role=tabpanel]")?.querySelectorAll("#chat-box textarea, .main-box textarea") ?? [];
  const box = [...boxes].find((one) => one.offsetParent) ?? document.querySelector("#chat-box textarea");
  box.value = text;
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  box.focus();
}

// The server empties the box once it has the message. What was written meanwhile stays.
function keepWriting(box) {
  const sent = box.value, end = performance.now() + 20_000;
  let now = sent;
  const emptied = () => { if (!box.value) now = ""; }; // by hand
  box.addEventListener("input", emptied);
  const look = () => {
    const more = !box.value && now.startsWith(sent) ? now.slice(sent.length) : "";
    if (box.value && box.isConnected && performance.now() < end) { now = box.value; requestAnimationFrame(look); return; }
    box.removeEventListener("input", emptied);
    if (more) fill(more);
  };
  if (sent) look();
}

addEventListener("keydown", (event) => {
  const box = event.target;
  if (event.key === "Enter" && !event.shiftKey && !event.repeat && box.matches?.("#chat-box textarea")) keepWriting(box);
}, true);

// A double click is one press: nobody who double-clicks wants two jobs. Each later press counts, and so does one of
// another button. Pieces are drawn anew meanwhile, so that a button is known by what it asks for.
const TWICE_MS = 400;
const ONCE = ".go, .grid-go, [data-do]:not([data-do=up], [data-do=down])";
let pressed = { what: null, at: 0 };

addEventListener("click", (event) => {
  const hit = event.target.closest?.(ONCE);
  const what = hit && (hit.dataset.do ? JSON.stringify(hit.dataset) : hit);
  const twice = what && what === pressed.what && event.timeStamp - pressed.at < TWICE_MS;
  pressed = { what, at: event.timeStamp };
  if (twice) { event.preventDefault(); event.stopImmediatePropagation(); }
}, true);

addEventListener("keydown", (event) => { // nor does a key that is held down press again and again
  if (event.repeat && event.key === "Enter" && event.target.closest?.(ONCE)) event.preventDefault();
}, true);

const drawer = () => document.querySelector(".text-tab.show-side"); // the conversations, on a small screen
document.addEventListener("click", (event) => {
  if (!event.target.closest(".side, .side-toggle")) drawer()?.classList.remove("show-side");
  if (event.target.closest(".go, .grid-go, [data-do=send], [data-do=again], [data-do=retry]")) newest();
  event.target.closest("[role=tab]")?.scrollIntoView({ inline: "center", block: "nearest" });
  const hit = event.target.closest("[data-do],[data-set],[data-toggle],[data-tab],[data-theme],[data-fill],.side-toggle");
  if (!hit) return;
  const data = hit.dataset;
  if (data.sure && !confirm(data.sure)) return;
  if ("theme" in data) { localStorage.setItem("studio-theme", dark() ? "light" : "dark"); paint(wanted()); }
  else if (data.fill) fill(data.fill, hit);
  else if (hit.classList.contains("side-toggle")) document.querySelector(".text-tab")?.classList.toggle("show-side");
  else if (data.tab) document.getElementById(`tab-${data.tab}-button`)?.click();
  else if (data.set) {
    ask(hit, data.set);
    if (hit.classList.contains("chip")) for (const chip of hit.parentElement.children) chip.classList.toggle("on", chip === hit);
  }
  else if (data.toggle) ask(hit, data.toggle, true);
  else if (data.do === "edit") edit(hit);
  else if (data.do === "copy") navigator.clipboard.writeText(hit.closest(".turn").querySelector(".raw").content.textContent);
  else {
    const { sure, act, ...values } = data;
    if (data.do === "open" || data.do === "new") document.querySelector(".text-tab")?.classList.remove("show-side");
    if (act) hand(act, values);
    else if (!busy.has(hit)) { // not disabled: the keyboard would lose its place
      busy.add(hit);
      post(values).finally(() => busy.delete(hit));
    }
  }
});

document.addEventListener("change", (event) => { // one of many ways to make a result again
  const { ways } = event.target.dataset ?? {};
  if (!ways || !event.target.value) return;
  hand("page", { do: "restore", artefact: ways, change: event.target.value });
  event.target.value = "";
});

addEventListener("resize", () => document.querySelector("#tabs [role=tab].selected")?.scrollIntoView({ inline: "center", block: "nearest" }));

let typing;
document.addEventListener("input", (event) => {
  const name = event.target.dataset?.search;
  if (!name) return;
  clearTimeout(typing);
  typing = setTimeout(() => ask(event.target, new URLSearchParams({ [name]: event.target.value, page: 0 })), 250);
});

document.addEventListener("toggle", (event) => {
  const name = event.target.dataset?.fold;
  if (name && event.target.isConnected) { if (event.target.open) opened.add(name); else opened.delete(name); }
}, true);

// -- keys -------------------------------------------------------------------------------------------------------
const shown = (selector) => [...document.querySelectorAll(selector)].find((one) => one.getClientRects().length);
let listed = false; // an open list is closed by Escape, and nothing else is stopped
addEventListener("keydown", () => { listed = Boolean(shown("[role=option]")); }, true);
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return; // keys belong to it
  if (event.key === "Escape" && !event.defaultPrevented && !listed && drawer()) {
    drawer().classList.remove("show-side");
    document.querySelector(".side-toggle").focus();
  } else if (event.key === "Escape" && !event.defaultPrevented && !listed) {
    (shown(".turn.writing .stop, .shown .stop") || shown(".opened .close"))?.click();
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) shown(".go")?.click();
});

const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }; // from tab to tab
document.addEventListener("keydown", (event) => {
  const step = STEPS[event.key], tab = event.target.closest?.("#tabs [role=tab]");
  if (!step || !tab || event.altKey || event.ctrlKey || event.metaKey) return;
  const tabs = [...tab.parentElement.querySelectorAll("[role=tab]:not([disabled])")], at = tabs.indexOf(tab) + step;
  const next = tabs[Number.isFinite(step) ? (at + tabs.length) % tabs.length : step < 0 ? 0 : tabs.length - 1];
  event.preventDefault();
  next.click();
  next.focus();
});

// The list of a chooser is drawn anew when the server has answered that it was opened. If the keyboard has gone on
// meanwhile, it would stay open over the page.
addEventListener("focusout", (event) => {
  const box = event.target;
  if (!box.matches?.(".chooser input")) return;
  const end = performance.now() + 5000;
  const look = () => {
    if (document.activeElement === box || performance.now() > end) return;
    if (box.closest(".chooser").querySelector("[role=option]")) box.dispatchEvent(new FocusEvent("blur"));
    setTimeout(look, 150);
  };
  look();
});
