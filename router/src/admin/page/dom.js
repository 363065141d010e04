// Elements, words and numbers.

/** An element: `h("p", { class: "soft", onclick: f }, "text", other)`. What is null or false is left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const main = () => document.getElementById("content");

/** Puts a view on the page, and the reader at its beginning. */
export function show(title, ...children) {
  document.title = `${title} · Cell Router`;
  main().replaceChildren(...children.flat(9).filter(Boolean));
}

let hide;
/** Says that something is done, or is not. */
export function toast(text, bad = false) {
  const place = document.getElementById("toast");
  place.className = bad ? "bad" : "";
  place.textContent = text;
  clearTimeout(hide);
  hide = setTimeout(() => place.replaceChildren(), bad ? 9000 : 4000);
}

/** Asks a question; whether the answer is yes. */
export function confirmed(question, yes, danger = true) {
  return new Promise((answer) => {
    const dialog = h("dialog", { "aria-labelledby": "question" },
      h("p", { id: "question" }, question),
      h("form", { method: "dialog", class: "row" },
        h("button", { value: "yes", class: danger ? "danger" : "main" }, yes),
        h("button", { value: "no", autofocus: true }, "Cancel")));
    dialog.addEventListener("close", () => { answer(dialog.returnValue === "yes"); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Asks for a text; null if there is none. */
export function asked(question, value, yes) {
  return new Promise((answer) => {
    const input = h("input", { type: "text", id: "answer", value, required: true });
    const dialog = h("dialog", { "aria-labelledby": "question" },
      h("form", { method: "dialog" },
        h("div", { class: "field" }, h("label", { for: "answer", id: "question" }, question), input),
        h("div", { class: "row" },
          h("button", { value: "yes", class: "main" }, yes),
          h("button", { value: "no", formnovalidate: true }, "Cancel"))));
    dialog.addEventListener("close", () => { answer(dialog.returnValue === "yes" ? input.value : null); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
    input.select();
  });
}

export const number = (n) => n.toLocaleString("en");

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < units.length - 1) { n /= 1000; unit += 1; }
  return `${n < 10 && unit ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

/** How long, from milliseconds. */
export function span(ms) {
  if (ms < 1000) return ms < 1 ? "< 1 ms" : `${ms} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
  return ms < 3600000 ? `${Math.floor(ms / 60000)} min` : `${(ms / 3600000).toFixed(1)} h`;
}

/** How long ago, from seconds since 1970. */
export function ago(seconds) {
  if (!seconds) return "never";
  const past = Math.max(0, Date.now() / 1000 - seconds);
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (past >= length) return `${Math.floor(past / length)} ${unit} ago`;
  }
  return past < 5 ? "just now" : `${Math.floor(past)} s ago`;
}

/** How a cell is, in a few words, the worst first. */
export function tags(cell, asleep) {
  const kinds = { active: "good", paused: "warn", maintenance: "warn", disabled: "bad", broken: "bad" };
  const list = [];
  if (cell.flagged && cell.state !== "broken") list.push(["flagged", "bad", "Its entry is broken; the last good version serves on"]);
  if (cell.breaker_open) list.push(["breaker open", "bad", "It could not be reached, and is left alone for a while"]);
  if (cell.missing_since) list.push(["missing", "bad", `Last heard of ${ago(cell.missing_since)}, though it should be awake`]);
  if (cell.waking) list.push([`waking: ${cell.waking}`, "calm", "Its machine is being started"]);
  else if (asleep) list.push(["asleep", "calm", "The next request wakes it"]);
  list.push([cell.state, kinds[cell.state], "As its entry says"]);
  return list.map(([word, kind, title]) => h("span", { class: `tag ${kind}`, title }, word));
}

/** The changes of an edit, one a line. */
export function changes(list) {
  if (!list.length) return h("p", { class: "soft" }, "Only the layout.");
  const line = ({ path, before, after }) => {
    const [mark, kind] = before === null ? ["+", "plus"] : after === null ? ["−", "minus"] : ["~", "tilde"];
    const value = before === null ? JSON.stringify(after) : after === null ? JSON.stringify(before)
      : `${JSON.stringify(before)} → ${JSON.stringify(after)}`;
    return h("li", { class: kind }, `${mark} ${path || "the text"}${before === null && after === null ? "" : `: ${value}`}`);
  };
  return h("ul", { class: "changes" }, list.map(line));
}
