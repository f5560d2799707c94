// What the forms hold, read from what they show: what the server has not written down yet (staying.py), since it was
// typed, chosen or dropped a moment ago.
let choices; // by family and parameter: what is shown, and the value that it stands for

function shownIn(piece, offered) { // undefined: nothing that can be read, such as a choice that is still looked for
  const files = [...piece.querySelectorAll("[src*='/file='], [href*='/file=']")].map(pathOf).filter(Boolean);
  if (files.length) return [...new Set(files)];
  if (piece.querySelector("[type=file]")) return undefined;
  const radios = [...piece.querySelectorAll("[type=radio]")];
  if (radios.length) return offered?.[radios.findIndex((one) => one.checked)]?.[1];
  const list = piece.querySelector("[role=combobox]");
  if (list) return offered?.find(([label]) => label === list.value)?.[1];
  const box = piece.querySelector("textarea, input[type=text]:not([role]), input[type=number], input[type=checkbox]");
  if (!box) return undefined;
  if (box.type === "checkbox") return box.checked;
  if (box.type !== "number") return box.value;
  return box.value === "" ? undefined : Number(box.value);
}

export function pathOf(one) {
  const path = (one.src ?? one.href).split("/file=")[1];
  try { return decodeURIComponent(path); } catch { return path; } // Gradio may leave a name as it is
}

export function shownForms(now) { // written over what was known of them
  choices ??= JSON.parse(document.querySelector("[data-choices]")?.dataset.choices ?? "{}");
  for (const form of document.querySelectorAll("[class*='form-of-']")) {
    const modality = form.closest("[id^=tab-]").id.slice("tab-".length);
    const family = [...form.classList].find((one) => one.startsWith("form-of-")).slice("form-of-".length);
    const there = (now[modality] ??= {}), values = ((there.forms ??= {})[family] ??= {});
    for (const piece of form.querySelectorAll("[class*=' p-']")) {
      const name = [...piece.classList].find((one) => one.startsWith("p-")).slice("p-".length);
      const value = shownIn(piece, choices[family]?.[name]);
      if (value !== undefined) values[name] = value;
    }
    const model = document.querySelector(`#${modality}-model input`)?.value.match(/^[●○] (\S+)/)?.[1];
    if (model) there.model = model;
  }
}

addEventListener("beforeunload", (event) => { // what is on its way would be lost: whoever leaves is asked
  if (document.querySelector(".uploading")) event.preventDefault();
});
