// The time line of a film: a block for each section, and the words of the one that is chosen. The prompts stay in the
// parameter's own text box, one line a section, all lines empty where the film has one description.

const put = (box, value) => {
  if (!box || box.value === value) return;
  box.value = value;
  for (const name of ["input", "change", "blur"]) box.dispatchEvent(new Event(name, { bubbles: true }));
};

const even = (value) => { // halves go to the even number, as in Python
  const low = Math.floor(value), rest = value - low;
  return rest < 0.5 ? low : rest > 0.5 ? low + 1 : low + (low % 2);
};

class SectionLine extends HTMLElement {
  connectedCallback() {
    this.words = JSON.parse(this.dataset.words);
    this.texts = [];
    this.chosen = 0;
    this.innerHTML = `<b></b><p class="section-again" hidden><span></span> <button type="button" class="b small"></button></p>
      <div class="section-blocks"></div><label><small></small><input type="text" maxlength="2000"></label>`;
    [this.title_, this.again, this.blocks, this.label] = this.children;
    this.title_.textContent = this.words.title;
    this.again.lastElementChild.textContent = this.words.drop;
    this.again.lastElementChild.onclick = () => this.anew();
    this.field = this.label.lastElementChild;
    this.field.oninput = () => { this.texts[this.chosen] = this.field.value.trim(); this.write(); this.draw(); };
    this.blocks.onclick = (event) => {
      const block = event.target.closest("button");
      if (block) { this.chosen = Number(block.dataset.n); this.drawn = null; this.tick(); this.field.focus(); }
    };
    this.timer = setInterval(() => { if (this.getClientRects().length) this.tick(); }, 200);
    this.tick();
  }

  disconnectedCallback() { clearInterval(this.timer); }

  box(name) {
    return this.closest(".family")?.querySelector(`.p-${name} textarea, .p-${name} input:not([type=range], [type=file])`);
  }

  get fps() { return Number(this.box("fps")?.value) || Number(this.dataset.fps); }
  get count() {
    const seconds = Number(this.box("seconds")?.value) || 0;
    return Math.min(600, Math.max(1, even(seconds * this.fps / Number(this.dataset.frames))));
  }

  tick() {
    const box = this.box(this.dataset.field), count = this.count;
    if (!box) return;
    if (box.value !== this.written) { // set from elsewhere: a restored recipe
      this.texts = box.value.split("\n");
      this.written = box.value;
      this.drawn = null;
    }
    if (count !== this.drawnCount) { this.chosen = Math.min(this.chosen, count - 1); this.write(); }
    this.draw();
  }

  write() { // as many lines as there are sections; what lies beyond is kept for when the film grows again
    const lines = Array.from({ length: this.count }, (_, n) => this.texts[n] || "");
    this.written = lines.some(Boolean) ? lines.join("\n") : "";
    put(this.box(this.dataset.field), this.written);
  }

  draw() {
    const count = this.count, each = Number(this.dataset.frames) / this.fps, again = this.box("from_section")?.value || "";
    const prompt = this.closest(".family")?.querySelector(".main-box textarea")?.value.trim();
    const state = JSON.stringify([count, each, this.chosen, again, prompt, this.texts]);
    if (state === this.drawn) return;
    [this.drawn, this.drawnCount] = [state, count];
    const number = (value) => value.toLocaleString(document.documentElement.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
    const from = (n) => number(n * each), word = (key, values) => this.words[key].replace(/\{(\w)\}/g, (_, name) => values[name]);
    this.blocks.replaceChildren(...Array.from({ length: count }, (_, n) => {
      const block = document.createElement("button");
      Object.assign(block, { type: "button", textContent: n + 1, title: `${from(n)}–${from(n + 1)} s${this.texts[n] ? ` · ${this.texts[n]}` : ""}` });
      block.dataset.n = n;
      block.className = `${this.texts[n] ? "own" : ""} ${n === this.chosen ? "on" : ""}`;
      return block;
    }));
    const total = number((Number(this.dataset.frames) * count + 1) / this.fps);
    this.title_.textContent = `${this.words.title} · ${word("count", { n: count, s: total })}`;
    this.label.firstElementChild.textContent = `${word("section", { n: this.chosen + 1 })} · ${from(this.chosen)}–${from(this.chosen + 1)} s`;
    this.field.placeholder = prompt || this.words.same;
    if (this.field.value.trim() !== (this.texts[this.chosen] || "")) this.field.value = this.texts[this.chosen] || "";
    this.again.hidden = !again;
    this.again.firstElementChild.textContent = word("again", { n: again });
  }

  anew() { // forget the film that would be made again
    put(this.box("from_section"), "");
    this.closest(".family")?.querySelector(".p-film .icon-button")?.click(); // its cross, if there is a file
    this.drawn = null;
  }
}

customElements.define("section-line", SectionLine);
