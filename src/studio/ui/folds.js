// Which folds of the forms are open: they are when the page is opened anew, too.
let closed = []; // those that were open and are not shown yet

const nameOf = (fold) => { // "More settings" of a family is its first fold in either language
  const form = fold.closest("[class*='form-of-']");
  const family = [...(form?.classList ?? [])].find((one) => one.startsWith("form-of-"));
  return family && `${family}/${[form, ...form.querySelectorAll(".fold")].filter((one) => one.matches(".fold")).indexOf(fold)}`;
};
const folds = () => [...document.querySelectorAll(".fold")].map((fold) => [nameOf(fold), fold.querySelector("button")]);

export function openFolds(known) { // and those of a form that nobody looked at since
  const there = folds(), names = there.map(([name]) => name);
  const open = there.filter(([, button]) => button.classList.contains("open")).map(([name]) => name);
  return [...new Set([...open, ...closed, ...known.filter((name) => !names.includes(name))])];
}

export function begin(known) { closed = [...known]; }

export function unfold(stays) { // whether there is nothing left to open
  for (const [name, button] of closed.length ? folds() : []) {
    if (!closed.includes(name) || !button.getClientRects().length) continue;
    const is = button.classList.contains("open");
    if (!is) button.click();
    if (stays(name, is)) closed = closed.filter((one) => one !== name);
  }
  return !closed.length;
}

addEventListener("click", (event) => { // the person was quicker
  const fold = event.isTrusted && event.target.closest(".fold > button")?.parentElement;
  if (fold) closed = closed.filter((one) => one !== nameOf(fold));
}, true);
