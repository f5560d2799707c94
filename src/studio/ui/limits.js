// A number typed beyond the ends of its slider stays as it was typed. Gradio would move it to the next end, without a
// word, when the box is left; here the field says its limits, and the engine refuses it.
const words = () => document.querySelector("[data-limits]")?.dataset.limits ?? "";
const wrong = (box) => box.value === "" || Number(box.value) < Number(box.min) || Number(box.value) > Number(box.max);
let count = 0;
const boxes = "[data-testid=number-input][max]";

addEventListener("blur", (event) => {
  if (event.target.matches?.(boxes) && wrong(event.target)) event.stopImmediatePropagation();
}, true);

function mark(box) {
  const field = box.closest(".block"), told = field.querySelector(".beyond");
  const says = box.value !== "" && wrong(box) && box !== document.activeElement && !field.querySelector("#refusal");
  if (says === Boolean(told)) return;
  told?.remove();
  field.toggleAttribute("data-beyond", says);
  if (!says) {
    if (box.getAttribute("aria-describedby") === told.id) for (const name of ["aria-invalid", "aria-describedby"]) box.removeAttribute(name);
    return;
  }
  const number = (text) => Number(text).toLocaleString(document.documentElement.lang);
  const textContent = words().replace("{low}", number(box.min)).replace("{high}", number(box.max));
  const note = Object.assign(document.createElement("p"), { className: "refusal beyond", id: `beyond-${count += 1}`, textContent });
  note.setAttribute("role", "status");
  field.append(note);
  box.setAttribute("aria-invalid", "true");
  box.setAttribute("aria-describedby", note.id);
}

setInterval(() => {
  if (document.hidden) return;
  for (const box of document.querySelectorAll(boxes)) if (box.getClientRects().length) mark(box);
}, 200);
