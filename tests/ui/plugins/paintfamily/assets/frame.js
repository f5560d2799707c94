customElements.define("paint-frame", class extends HTMLElement {
  connectedCallback() { this.dataset.drawn = "yes"; }
});
