// A few words at the edge of the page, which go by themselves.
export function toast(text, bad) {
  const note = document.createElement("div");
  note.className = `toast${bad ? " bad" : ""}`;
  note.setAttribute("role", bad ? "alert" : "status");
  note.textContent = text;
  document.body.append(note);
  setTimeout(() => note.remove(), bad ? 9000 : 2500);
}
