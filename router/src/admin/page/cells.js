// All cells: found, paged, live.

import { ask, may } from "./api.js";
import { ago, h, number, show, tags } from "./dom.js";

const PAGE = 25;
/** How often numbers of the shown rows are read anew, in milliseconds. */
const EVERY = 3000;
/** How long the platform's word on a machine is believed, in milliseconds. */
const BELIEVED = 20000;
const STATES = ["active", "paused", "maintenance", "disabled", "flagged", "waking", "breaker_open", "missing"];

const machines = new Map();

export async function cells({ ended, router }) {
  const wanted = new URLSearchParams(location.hash.split("?")[1] ?? "");
  let [search, state, pages, shown] = [wanted.get("search") ?? "", wanted.get("state") ?? "", [""], new Map()];
  const body = h("tbody");
  const count = h("span", { class: "soft", role: "status" });
  const back = h("button", { type: "button", onclick: () => { pages.pop(); load(); } }, "Previous");
  const on = h("button", { type: "button", onclick: () => { pages.push(on.dataset.next); load(); } }, "Next");
  const input = h("input", {
    type: "search", id: "search", value: search, placeholder: "Name or host (press /)", "aria-label": "Search cells", autocomplete: "off",
    oninput: () => { clearTimeout(typing); typing = setTimeout(find, 150); },
    // What is typed counts, not what is shown still.
    onkeydown: async (event) => {
      if (event.key !== "Enter") return;
      await find();
      if (shown.size === 1) location.hash = `#/cells/${encodeURIComponent([...shown.keys()][0])}`;
    },
  });
  const select = h("select", { "aria-label": "Only cells that are", onchange: () => { state = select.value; pages = [""]; load(); } },
    h("option", { value: "" }, "Any state"),
    STATES.map((one) => h("option", { value: one, selected: one === state }, one.replace("_", " "))));
  let [typing, asking, looking] = [0, null, false];
  const find = () => { clearTimeout(typing); search = input.value.trim().toLowerCase(); pages = [""]; return load(); };

  show("Cells",
    h("div", { class: "row spread" }, h("h1", {}, "Cells"), may("edit") && h("a", { class: "button main", href: "#/cells/new" }, "Add a cell")),
    h("search", { class: "filters" }, input, select),
    h("div", { class: "sheet table" }, h("table", {},
      h("caption", { class: "skip" }, "Cells by name"),
      h("thead", {}, h("tr", {}, [["Cell"], ["State"], ["Lives at", "wide"], ["In flight", "number"], ["Requests", "number"], ["Errors", "number"], ["Last request", "number"]]
        .map(([text, kind]) => h("th", { scope: "col", class: kind ?? null }, text)))),
      body)),
    h("div", { class: "row spread pager" }, count, h("div", { class: "row" }, back, on)));

  function row(cell, changed) {
    const known = cell.in_flight ? null : machines.get(cell.name);
    return h("tr", { class: changed ? "changed" : null },
      h("td", {}, h("a", { class: "name", href: `#/cells/${encodeURIComponent(cell.name)}` }, cell.name)),
      h("td", {}, tags(cell, known?.asleep)),
      h("td", { class: "place wide" }, cell.placement),
      h("td", { class: "number" }, cell.queued ? `${number(cell.in_flight)} + ${number(cell.queued)} queued` : number(cell.in_flight)),
      h("td", { class: "number" }, number(cell.requests)),
      h("td", { class: "number" }, cell.errors ? h("span", { class: "tag bad" }, number(cell.errors)) : "0"),
      h("td", { class: "number soft" }, ago(cell.last_request)));
  }

  /** Puts a row in place of its older self, unless they say the same. */
  function put(cell) {
    const there = shown.get(cell.name);
    if (!there) return;
    const held = there.element.contains(document.activeElement);
    const same = JSON.stringify(there.cell) === JSON.stringify(cell);
    const element = row(cell, !same);
    if (element.textContent === there.element.textContent) return;
    there.element.replaceWith(element);
    shown.set(cell.name, { cell, element });
    if (held) element.querySelector("a").focus();
  }

  async function load(quiet = false) {
    asking?.abort();
    asking = new AbortController();
    const query = { search, state, after: pages.at(-1), limit: PAGE };
    let page;
    try {
      page = await ask("GET", "/v1/cells", { query, signal: AbortSignal.any([asking.signal, ended]) });
    } catch (problem) {
      if (problem.name === "AbortError") return;
      throw problem;
    }
    const first = pages.length > 1 ? (pages.length - 1) * PAGE : 0;
    const names = page.cells.map((cell) => cell.name).join();
    if (quiet && names === [...shown.keys()].join()) {
      page.cells.forEach(put);
    } else {
      shown = new Map(page.cells.map((cell) => [cell.name, { cell, element: row(cell) }]));
      body.replaceChildren(...[...shown.values()].map(({ element }) => element));
      if (!shown.size) body.append(h("tr", {}, h("td", { colspan: "7", class: "empty" }, search || state ? "No cell fits." : "There is no cell yet.")));
    }
    count.textContent = shown.size ? `${number(first + 1)}–${number(first + shown.size)} of ${number(page.total)}` : "";
    back.disabled = pages.length < 2;
    on.disabled = !page.next;
    on.dataset.next = page.next ?? "";
    sleepers();
  }

  /** Asks the platform which of the shown cells sleep, one after the other, and never twice at once. */
  async function sleepers() {
    if (!router()?.wakes || looking) return;
    looking = true;
    try {
      for (let cell; (cell = unknown()) && !ended.aborted;) {
        const { asleep } = await ask("GET", `/v1/cells/${encodeURIComponent(cell.name)}/machine`, { signal: ended });
        machines.set(cell.name, { asleep, at: Date.now() });
        const there = shown.get(cell.name);
        if (there) put(there.cell);
      }
    } catch { /* Asked again when the rows are read again. */ } finally { looking = false; }
  }

  /** A shown cell of which the platform has to be asked: one with requests on their way to it is awake. */
  function unknown() {
    return [...shown.values()].map(({ cell }) => cell).find((cell) => {
      const known = machines.get(cell.name);
      return cell.placement.includes("/") && !cell.in_flight && !(known && Date.now() - known.at < BELIEVED);
    });
  }

  addEventListener("live", ({ detail: { kind, data } }) => {
    if (kind === "cells") {
      data.cells.forEach(({ name }) => machines.delete(name));
      data.cells.forEach(put);
      if (["waking", "breaker_open", "missing"].includes(state)) load(true);
    } else if (kind === "many") {
      machines.clear();
      load(true);
    } else load(true);
  }, { signal: ended });
  const ticks = setInterval(() => { if (!document.hidden) load(true); }, EVERY);
  ended.addEventListener("abort", () => clearInterval(ticks));
  await load();
}
