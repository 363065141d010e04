// The form of an entry, made from the registry's own schema: each key with its meaning, its bounds, and what is wrong with it.

import { ask, may, read } from "./api.js";
import { changes, h, toast } from "./dom.js";

let schema;
const loaded = async () => (schema ??= (await (await fetch("page/schema.json")).json()).$defs);

/** What stands in a field, as text. */
function written(kind, value) {
  if (value === undefined) return "";
  if (kind === "list") return value.every((one) => typeof one === "string") ? value.join("\n") : JSON.stringify(value, null, 2);
  return kind === "json" ? JSON.stringify(value, null, 2) : String(value);
}

/** What is meant by it; undefined for an empty field, the text itself where it is no JSON. */
function meant(kind, text) {
  const trimmed = text.trim();
  if (!trimmed) return undefined;
  const json = () => { try { return JSON.parse(trimmed); } catch { return trimmed; } };
  if (kind === "list") return trimmed.startsWith("[") ? json() : trimmed.split(/[\s,]+/).filter(Boolean);
  return kind === "text" ? text : json();
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export async function entryForm(name, ended, saved) {
  const { cell: { properties }, defaults } = await loaded();
  const path = `/v1/cells/${encodeURIComponent(name)}/entry`;
  let [entry, etag] = [{}, null];
  const fields = new Map();
  const shown = new Set();
  const place = h("div");
  const outcome = h("div", { role: "status" });
  const wrong = h("ul", { class: "wrong", role: "alert" });
  const save = h("button", { class: "main", disabled: true }, "Save");
  const reset = h("button", { type: "button", disabled: true, onclick: () => draw() }, "Reset");
  const stale = h("p", { class: "hint", role: "status" });
  const readOnly = !may("edit");

  function field(key) {
    const what = properties[key] ?? { description: "This key is not known." };
    const kind = what.enum || what.type === "boolean" ? "choice" : what.type === "array" ? "list" : what.type === "integer" ? "number" : what.type === "string" ? "text" : "json";
    const fallback = defaults.properties[key]?.default;
    const id = `key-${key}`;
    const common = { id, disabled: readOnly, "aria-describedby": `${id}-hint ${id}-wrong`, oninput: typed };
    let input;
    if (kind === "choice") {
      const choices = what.enum ?? [true, false];
      input = h("select", common, h("option", { value: "" }, fallback === undefined ? "default" : `default (${fallback})`), choices.map((one) => h("option", { value: JSON.stringify(one), selected: same(one, entry[key]) }, String(one))));
    } else if (kind === "list" || kind === "json") {
      const text = written(kind, entry[key]);
      input = h("textarea", { ...common, rows: String(Math.min(8, Math.max(2, text.split("\n").length))), spellcheck: "false" });
      input.value = text;
    } else {
      input = h("input", { ...common, type: "text", inputmode: kind === "number" ? "numeric" : null, spellcheck: "false", autocomplete: "off", placeholder: fallback === undefined ? what.examples?.[0] : `default ${fallback}` });
      input.value = written(kind, entry[key]);
    }
    const wrong = h("p", { class: "wrong", id: `${id}-wrong` });
    fields.set(key, { kind, input, wrong });
    return h("div", { class: "field" }, h("label", { for: id }, key), input, h("p", { class: "hint", id: `${id}-hint` }, what.description), wrong);
  }

  /** What the form says that the entry does not, as a merge patch. */
  function patch() {
    const found = {};
    for (const [key, { kind, input }] of fields) {
      const value = kind === "choice" ? (input.value ? JSON.parse(input.value) : undefined) : meant(kind, input.value);
      if (same(value, entry[key])) continue;
      found[key] = value === undefined ? null : kind === "json" && value instanceof Object ? { ...Object.fromEntries(Object.keys(entry[key] ?? {}).map((old) => [old, null])), ...value } : value;
    }
    return found;
  }

  /** Puts each problem at its field, and the others below. */
  function blame(problems, message) {
    for (const { input, wrong } of fields.values()) { input.removeAttribute("aria-invalid"); wrong.textContent = ""; }
    const others = [];
    for (const { path, what, fix } of problems) {
      const key = path.startsWith(`$.cells.${name}.`) ? path.slice(`$.cells.${name}.`.length).split(/[.[]/)[0] : null;
      const at = fields.get(key);
      if (at) { at.input.setAttribute("aria-invalid", "true"); at.wrong.append(...(at.wrong.childNodes.length ? [h("br")] : []), `${what}; ${fix}`); } else others.push(`${path}: ${what}; ${fix}`);
    }
    if (message && !problems.length) others.push(message);
    wrong.replaceChildren(...others.map((one) => h("li", {}, one)));
  }

  let [wait, asking] = [0, null];
  function typed() {
    const body = patch();
    const any = Object.keys(body).length > 0;
    save.disabled = reset.disabled = !any;
    asking?.abort();
    clearTimeout(wait);
    if (!any) { blame([]); outcome.replaceChildren(); return; }
    wait = setTimeout(async () => {
      asking = new AbortController();
      try {
        const told = await ask("PATCH", path, { body, query: { dry_run: true }, signal: AbortSignal.any([asking.signal, ended]) });
        blame([]);
        outcome.replaceChildren(h("p", { class: "hint" }, "This would change:"), changes(told.changes));
      } catch (problem) {
        if (problem.name === "AbortError") return;
        save.disabled = true;
        blame(problem.problems ?? [], problem.message);
        outcome.replaceChildren();
      }
    }, 250);
  }

  async function submit(event) {
    event.preventDefault();
    clearTimeout(wait);
    try {
      await ask("PATCH", path, { body: patch(), etag });
      toast(`${name} is saved.`);
      await load();
      await saved();
    } catch (problem) {
      if (problem.kind === "conflict") stale.replaceChildren("Somebody else has edited this cell meanwhile. ", h("button", { type: "button", onclick: load }, "Load it anew"));
      else blame(problem.problems ?? [], problem.message);
    }
  }

  function draw() {
    fields.clear();
    const there = [...Object.keys(properties).filter((key) => key in entry || shown.has(key)), ...Object.keys(entry).filter((key) => !(key in properties))];
    const others = Object.keys(properties).filter((key) => !there.includes(key)).sort();
    const more = h("select", { "aria-label": "Add a key", onchange: () => { const key = more.value; shown.add(key); place.firstChild.append(field(key)); more.querySelector(`[value="${key}"]`).remove(); more.value = ""; fields.get(key).input.focus(); } },
      h("option", { value: "" }, "Add a key …"), others.map((key) => h("option", { value: key }, key)));
    place.replaceChildren(h("div", { class: "columns" }, there.map(field)), !readOnly && h("div", { class: "row" }, save, reset, more));
    if (readOnly) place.lastChild?.nodeType === Node.TEXT_NODE && place.lastChild.remove();
    outcome.replaceChildren();
    stale.replaceChildren();
    blame([]);
    save.disabled = reset.disabled = true;
  }

  async function load() {
    try {
      const got = await read(path);
      [entry, etag] = [JSON.parse(got.text), got.etag];
      shown.clear();
      draw();
    } catch (problem) {
      place.replaceChildren(h("p", { class: "soft" }, problem.message));
    }
  }

  await load();
  const form = h("form", { class: "sheet", onsubmit: submit, novalidate: true }, h("h2", {}, "Entry"), place, wrong, outcome, stale);
  /** Somebody has edited: load it anew, unless something is typed here. */
  form.reload = async () => {
    const got = await read(path).catch(() => null);
    if (!got || got.etag === etag) return;
    if (Object.keys(patch()).length) stale.replaceChildren("Somebody else has edited this cell meanwhile. ", h("button", { type: "button", onclick: load }, "Load it anew"));
    else await load();
  };
  return form;
}
