// What Gradio's own pieces are called aloud, in the language of the page: it has English there, or words that are not
// those that are seen. And files are chosen: in French, "télécharger" is what "download" is called.
let words;

function named(one) {
  const label = one.getAttribute("aria-label");
  const input = label.match(/^(?:number input|range slider) for (.+)/)?.[1];
  const name = input ?? words[label];
  if (name) one.setAttribute("aria-label", name);
}

function chosen(place) { // a place for files
  const seen = place.querySelector("[data-testid=upload-text]");
  if (!seen) return;
  const texts = document.createTreeWalker(seen, NodeFilter.SHOW_TEXT);
  let last;
  while (texts.nextNode()) {
    const text = texts.currentNode, bare = text.data.replace(/^\s*-\s+(\S+)\s+-\s*$/, " $1 "); // "- or -" here, "or" there
    if (bare !== text.data) text.data = bare;
    if (bare.trim()) last = text;
  }
  if (last && !last.data.includes(words.choose)) last.data = ` ${words.choose}`;
  const label = place.closest(".drop")?.querySelector("[data-testid=block-label]")?.textContent.trim();
  const name = [label, seen.textContent.replace(/\s+/g, " ").trim()].filter(Boolean).join(". ");
  if (place.getAttribute("aria-label") !== name) place.setAttribute("aria-label", name);
}

function sent(told) { // a file that is on its way
  const text = [...told.childNodes].find((one) => one.nodeType === Node.TEXT_NODE);
  if (text && text.data !== words.uploading) text.data = words.uploading;
}

setInterval(() => {
  if (document.hidden) return;
  words ??= JSON.parse(document.querySelector("[data-spoken]")?.dataset.spoken ?? "null");
  if (!words) return;
  document.querySelectorAll("#tabs :is(button, input, [role=group], #chat-box div)[aria-label]").forEach(named);
  document.querySelectorAll("[aria-dropeffect]").forEach(chosen);
  document.querySelectorAll(".uploading").forEach(sent);
}, 300);
