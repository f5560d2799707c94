// Finished pieces of a film, one after the other and again, while the next one is made. The list grows in data-clips.

export function playFilms(element) {
  for (const film of element.querySelectorAll("[data-clips]")) show(film);
}

function show(film) {
  const clips = JSON.parse(film.dataset.clips), words = JSON.parse(film.dataset.words);
  if (film.known === film.dataset.clips) return;
  film.known = film.dataset.clips;
  if (!film.player) {
    film.player = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true, controls: true });
    film.pieces = Object.assign(document.createElement("div"), { className: "pieces" });
    film.told = Object.assign(document.createElement("small"), { className: "piece-told" });
    film.append(film.player, film.told, film.pieces);
    film.player.onloadedmetadata = () => { // the place stays as large between two pieces
      film.player.style.aspectRatio = `${film.player.videoWidth} / ${film.player.videoHeight}`;
    };
    film.player.onended = () => {
      const now = JSON.parse(film.dataset.clips);
      play(film, now[(now.indexOf(film.now) + 1) % now.length]);
    };
  }
  film.words = new Map(clips.map((clip, place) => [clip, words[place]])); // what it is called, in short and in words
  const chips = clips.filter((clip, place) => place === 0 || words[place][0] !== words[place - 1][0]);
  film.pieces.replaceChildren(...chips.map((clip) => {
    const [number, title] = film.words.get(clip);
    const button = Object.assign(document.createElement("button"), { type: "button", className: "chip", textContent: number, title });
    button.setAttribute("aria-label", title);
    button.onclick = () => play(film, clip);
    return button;
  }));
  if (!clips.includes(film.now)) play(film, clips.find((clip) => nameOf(clip) === nameOf(film.now)) || clips[0]);
  mark(film);
}

const nameOf = (clip) => (clip ? new URLSearchParams(clip.split("?")[1]).get("file").replace(/\.\w+$/, "") : "");

function play(film, clip) {
  film.now = clip;
  film.player.src = clip;
  film.player.play().catch(() => {}); // a browser that does not start films by itself shows its own button
  mark(film);
}

function mark(film) {
  const [number, title] = film.words.get(film.now) || [];
  film.told.textContent = title;
  for (const button of film.pieces.children) button.classList.toggle("on", button.textContent === number);
}
