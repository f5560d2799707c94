// Where the keyboard goes when what it stood on is drawn anew or is gone: the same button, else the same tile or row,
// else its neighbour, else the filter of the list. Never the top of the page.
const CAN = "button:not([disabled]), a[href], input, textarea, select, [tabindex]";
const first = (item) => (item.matches(CAN) ? item : item.querySelector(".title") ?? item.querySelector(`.tools button`) ?? item.querySelector(CAN));
const seen = (one) => one.getClientRects().length > 0;

export function before(element) { // to be asked before the piece is drawn anew
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  if (!focused) return null;
  const keys = [...element.querySelectorAll("[data-key]")].map((one) => one.dataset.key);
  const own = focused.closest("[data-key]")?.dataset.key;
  const key = [own, ...Object.values(focused.dataset), element.querySelector(".tile.on")?.dataset.key].find((one) => keys.includes(one));
  const at = keys.indexOf(key);
  const near = at < 0 ? [] : [key, ...keys.slice(at + 1), ...keys.slice(0, at).reverse()];
  return { focused, near, byKeys: focused.matches(":focus-visible") };
}

export function after(element, was) {
  if (!was || was.focused.isConnected) return;
  const [tag, what] = [was.focused.tagName, JSON.stringify(was.focused.dataset)];
  const same = what !== "{}" && [...element.querySelectorAll(tag)].find((one) => JSON.stringify(one.dataset) === what && !one.disabled);
  if (same) { same.focus({ preventScroll: true }); return; }
  const items = new Map([...element.querySelectorAll("[data-key]")].map((one) => [one.dataset.key, one]));
  const places = was.near.map((key) => items.get(key)).filter(Boolean).map(first);
  const filter = element.closest(".panel")?.querySelector(".chip.on, input[type=search]");
  [...places, filter].find((one) => one && seen(one))?.focus({ preventScroll: !was.byKeys });
}
