// Styles as buttons. Which are pressed stands in the parameter's own text box, one a line, so that settings that come
// back from a recipe are shown as well.

class PictureStyles extends HTMLElement {
  connectedCallback() {
    this.onclick = (event) => {
      const button = event.target.closest("[data-style]");
      if (button) this.press(button.dataset.style);
    };
    this.timer = setInterval(() => { if (this.getClientRects().length) this.draw(); }, 200);
    this.draw();
  }

  disconnectedCallback() { clearInterval(this.timer); }

  get box() { return this.closest(".family")?.querySelector(`.p-${this.dataset.field} textarea`); }

  get chosen() { return (this.box?.value ?? "").split("\n").map((line) => line.trim()).filter(Boolean); }

  press(name) {
    const box = this.box, chosen = this.chosen;
    if (!box) return;
    box.value = (chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name]).join("\n");
    for (const kind of ["input", "change", "blur"]) box.dispatchEvent(new Event(kind, { bubbles: true }));
    this.draw();
  }

  draw() {
    const chosen = this.chosen;
    const buttons = new Map([...this.querySelectorAll("[data-style]")].map((one) => [one.dataset.style, one]));
    for (const [name, button] of buttons) {
      const on = String(chosen.includes(name));
      if (button.getAttribute("aria-pressed") !== on) button.setAttribute("aria-pressed", on);
    }
    const told = chosen.map((name) => buttons.get(name)?.textContent ?? name).join(", ");
    const said = this.querySelector("summary span");
    if (said.textContent !== told) said.textContent = told;
  }
}

customElements.define("picture-styles", PictureStyles);
