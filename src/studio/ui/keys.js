// What Gradio has no component for: pieces that keep themselves up to date, the buttons in them, keys, light and dark.
// No framework and nothing from outside; the content policy forbids both.
import "./form.js";
import "./painter.js";
import "./drop.js";
import { playFilms } from "./film.js";

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
  if (known.src !== element.dataset.src) known.tag = "";
  Object.assign(known, { src: element.dataset.src, busy: true });
  due.set(element, known);
  let next = 2000;
  try {
    const answer = await fetch(known.src, { headers: { "X-Tag": known.tag } });
    next = Number(answer.headers.get("X-Next-Ms")) || 3000;
    document.body.classList.toggle("lost", answer.status === 401);
    if (answer.status === 200 && known.src === element.dataset.src) {
      draw(element, await answer.text());
      known.tag = answer.headers.get("X-Tag") || "";
    }
  } catch { next = 2000; document.body.classList.add("lost"); }
  known.busy = false;
  known.at = performance.now() + next;
}

function draw(element, html) {
  const bottom = element.classList.contains("scroll") ? scroller(element) : null;
  const follow = bottom && bottom.scrollHeight - bottom.scrollTop - bottom.clientHeight < 120;
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const [was, now] = [element.querySelector("[data-keyed]"), fresh.content.querySelector("[data-keyed]")];
  if (was && now && was.className === now.className && was.parentElement === element) merge(was, now);
  else element.replaceChildren(fresh.content);
  for (const fold of element.querySelectorAll("details[data-fold]")) if (opened.has(fold.dataset.fold)) fold.open = true;
  playFilms(element);
  if (follow) bottom.scrollTop = bottom.scrollHeight;
}

function merge(was, now) { // keep what did not change: a playing sound, a selection, a picture that is loaded
  const old = new Map([...was.children].map((child) => [child.dataset.key, child]));
  const wanted = [...now.children].map((child) => {
    const same = old.get(child.dataset.key);
    if (!same) return child;
    if (same.dataset.editing) return same;
    if (same.dataset.clips && child.dataset.clips) { // a film goes on playing while it grows
      same.dataset.clips = child.dataset.clips;
      return same;
    }
    if (same.source === undefined ? same.outerHTML === child.outerHTML : same.source === child.outerHTML) return same;
    return child;
  });
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
    if (visible(element) || fresh) if (!known?.busy && (fresh || now >= known.at)) refresh(element);
  }
}, 100);

function newest() { // the tab shows what was just asked for, not what was looked at before
  for (const element of document.querySelectorAll(".result .live")) {
    if (!element.getClientRects().length) continue;
    if (innerWidth < 1080) setTimeout(() => element.scrollIntoView({ behavior: "smooth", block: "start" }), 400);
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
  const [path, query] = scope.dataset.src.split("?");
  const params = new URLSearchParams(query);
  for (const [name, value] of new URLSearchParams(values)) {
    params.set(name, toggle && params.get(name) === value ? "" : value);
  }
  scope.dataset.src = `${path}?${params}`;
}

// -- what buttons do --------------------------------------------------------------------------------------------
let count = 0;
function hand(values) { // to a handler of the Gradio page
  const box = document.querySelector("#act textarea, #act input");
  box.value = JSON.stringify({ ...values, n: ++count });
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  box.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", bubbles: true }));
  setTimeout(soon, 150);
}

async function post(values) { // to our own actions
  const answer = await fetch("studio/do", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values),
  });
  const told = await answer.json();
  if (told.error || told.said) toast(told.error || told.said, Boolean(told.error));
  soon();
}

function toast(text, bad) {
  const note = document.createElement("div");
  note.className = `toast${bad ? " bad" : ""}`;
  note.setAttribute("role", bad ? "alert" : "status");
  note.textContent = text;
  document.body.append(note);
  setTimeout(() => note.remove(), bad ? 9000 : 2500);
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
  const send = () => { hand({ do: "edit", chat: turn.dataset.chat, turn: turn.dataset.turn, text: box.value }); end(); };
  save.onclick = send;
  drop.onclick = end;
  box.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); end(); }
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); send(); }
  };
}

function fill(text) { // a suggestion into the box of the conversation
  const box = document.querySelector("#chat-box textarea");
  box.value = text;
  box.dispatchEvent(new InputEvent("input", { bubbles: true }));
  box.focus();
}

document.addEventListener("click", (event) => {
  if (event.target.closest(".go, .grid-go, [data-do=send], [data-do=again], [data-do=retry]")) newest();
  event.target.closest("[role=tab]")?.scrollIntoView({ inline: "center", block: "nearest" });
  const hit = event.target.closest("[data-do],[data-set],[data-toggle],[data-tab],[data-theme],[data-fill],.side-toggle");
  if (!hit) return;
  const data = hit.dataset;
  if (data.sure && !confirm(data.sure)) return;
  if ("theme" in data) { localStorage.setItem("studio-theme", dark() ? "light" : "dark"); paint(wanted()); }
  else if (data.fill) fill(data.fill);
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
    if (act) hand(values); else { hit.disabled = true; post(values).finally(() => { hit.disabled = false; }); }
  }
});

document.addEventListener("change", (event) => { // one of many ways to make a result again
  const { ways } = event.target.dataset ?? {};
  if (!ways || !event.target.value) return;
  hand({ do: "restore", artefact: ways, change: event.target.value });
  event.target.value = "";
});

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
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return; // keys belong to it
  if (event.key === "Escape" && !event.defaultPrevented) shown(".turn.writing .stop, .shown .stop")?.click();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) shown(".go")?.click();
});
