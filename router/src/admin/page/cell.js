// One cell: how it is, what can be done with it, and its entry.

import { ask, inForce, may } from "./api.js";
import { ago, asked, bytes, confirmed, h, number, show, tags, toast } from "./dom.js";
import { entryForm } from "./entry.js";
import { requests } from "./requests.js";

/** How often its numbers are read anew, in milliseconds. */
const EVERY = 2000;

export async function cell({ ended, name, router }) {
  const path = `/v1/cells/${encodeURIComponent(name)}`;
  let cell = await ask("GET", path, { signal: ended });
  let machine = { asleep: null, state: null };
  // It was renamed or removed here, and the page goes elsewhere.
  let gone = false;
  const [head, alarm, now, lanes, wrong, past] = ["div", "div", "section", "section", "section", "section"].map((tag) => h(tag));
  [now, lanes, wrong, past].forEach((part) => { part.className = "sheet"; });
  const seen = requests(path, ended);
  const form = await entryForm(name, ended, load);
  if (ended.aborted) return;
  show(name, head, alarm, h("div", { class: "columns" }, now, lanes, wrong), seen.parts, form, past);

  async function act(what, work) {
    try {
      await work();
      toast(what);
    } catch (problem) {
      toast(problem.message, true);
    }
    await load();
  }
  const state = (to, done) => act(done, () => ask("PUT", `${path}/state`, { body: { state: to } }));
  const button = (text, work, kind) => h("button", { type: "button", class: kind ?? null, onclick: work }, text);

  function actions() {
    const list = [];
    const is = cell.state;
    if (may("operate")) {
      if (is === "active") list.push(button("Pause", () => state("paused", `${name} is paused: requests wait.`)));
      if (is === "paused") list.push(button("Resume", () => state("active", `${name} serves again.`), "main"));
      if (is === "active" || is === "paused") list.push(button("Maintenance", () => state("maintenance", `${name} is in maintenance.`)));
      if (is === "maintenance") list.push(button("End maintenance", () => state("active", `${name} serves again.`), "main"));
      if (router()?.wakes && cell.placement.includes("/")) {
        if (machine.asleep) list.push(button("Wake", () => act(`${name} is being woken.`, () => ask("POST", `${path}/wake`))));
        else if (machine.asleep === false) list.push(button("Put to sleep", () => act(`${name} goes to sleep.`, () => ask("POST", `${path}/sleep`))));
      }
    }
    if (may("edit")) {
      if (is === "disabled") list.push(button("Enable", () => state("active", `${name} serves again.`), "main"));
      else if (is !== "broken") list.push(button("Disable", async () => {
        if (await confirmed(`Disable ${name}? Its visitors get 403.`, "Disable")) await state("disabled", `${name} is disabled.`);
      }));
      list.push(button("Rename", rename));
      list.push(button("Remove", remove, "danger"));
    }
    return list;
  }

  async function rename() {
    const to = await asked(`New name of ${name}`, name, "Rename");
    if (!to || to === name) return;
    try {
      await ask("PUT", `${path}/name`, { body: { name: to } });
      gone = true;
      toast(`${name} is ${to} now.`);
      await inForce(to);
      if (!ended.aborted) location.hash = `#/cells/${to}`;
    } catch (problem) {
      toast(problem.message, true);
      if (gone && !ended.aborted) location.hash = "#/";
    }
  }

  async function remove() {
    if (!(await confirmed(`Remove ${name}? Its entry goes; the history keeps it.`, "Remove"))) return;
    try {
      await ask("DELETE", `${path}/entry`);
      gone = true;
      location.hash = "#/";
      toast(`${name} is removed. The history brings it back.`);
    } catch (problem) { toast(problem.message, true); }
  }

  const bars = (numbers, kind, none) => {
    const sum = Object.values(numbers).reduce((one, other) => one + other, 0);
    if (!sum) return h("p", { class: "soft" }, none);
    return h("div", { class: "bars" }, Object.entries(numbers).sort((one, other) => other[1] - one[1]).flatMap(([name, count]) => [
      h("span", {}, name), h("meter", { class: kind, max: sum, value: count, "aria-label": `${name}: ${count} of ${sum}` }),
      h("span", { class: "number" }, `${number(count)} · ${Math.round((100 * count) / sum)} %`)]));
  };
  const facts = (rows) => h("dl", { class: "facts" }, rows.filter(Boolean).flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));

  function draw() {
    const held = head.contains(document.activeElement) ? document.activeElement.textContent : null;
    head.replaceChildren(
      h("p", { class: "soft" }, h("a", { href: "#/" }, "Cells"), " / "),
      h("div", { class: "row spread" }, h("div", { class: "row" }, h("h1", {}, name), h("span", {}, tags(cell, machine.asleep))), h("div", { class: "row" }, actions())));
    if (held) [...head.querySelectorAll("button")].find((one) => one.textContent === held)?.focus();
    alarm.className = cell.problems.length ? "sheet banner" : "";
    alarm.replaceChildren(...(cell.problems.length ? [h("strong", {}, cell.state === "broken" ? "The entry is broken, and the cell is left out" : "The entry is broken; the last good version serves on"), h("ul", { class: "wrong" }, cell.problems.map((one) => h("li", {}, one)))] : []));
    now.replaceChildren(h("h2", {}, "Now"), facts([
      ["In flight", number(cell.in_flight)],
      cell.queued > 0 && ["Queued", number(cell.queued)],
      machine.state && ["Machine", machine.state],
      ["Last request", ago(cell.last_request)],
      cell.beat_every_s && ["Last beat", `${ago(cell.last_beat)}, due each ${cell.beat_every_s} s`],
      ["Lives at", h("code", {}, cell.placement || "nowhere")],
      cell.protocol && ["Speaks", cell.protocol === "http2" ? "HTTP/2" : "HTTP/1.1"],
      cell.hosts.length && ["Hosts", cell.hosts.join(", ")],
      cell.paths.length && ["Paths", cell.paths.join(", ")]]));
    lanes.replaceChildren(h("h2", {}, "Requests by lane"), bars(cell.requests, "", "None since the router's start."),
      h("p", { class: "hint" }, `${bytes(cell.bytes_in)} in, ${bytes(cell.bytes_out)} out, since the router's start.`));
    wrong.replaceChildren(h("h2", {}, "Errors, by who made them"), bars(cell.errors, "bad", "None since the router's start."));
  }

  async function history() {
    const { versions } = await ask("GET", "/v1/registry/versions", { query: { cell: name, limit: 5 } });
    past.replaceChildren(h("div", { class: "row spread" }, h("h2", {}, "Last changes"), h("a", { href: `#/history/${name}` }, "All")),
      versions.length ? h("dl", { class: "facts" }, versions.flatMap(({ at, who, what }) => [
        h("dt", {}, h("time", { datetime: at }, `${at.slice(0, 10)} ${at.slice(11, 16)}`)),
        h("dd", {}, `${who}: `, h("code", {}, what.filter((one) => one.includes(` cells.${name}`)).join(", "))),
      ])) : h("p", { class: "soft" }, "None on record."));
  }

  async function load() {
    if (ended.aborted) return;
    try {
      cell = await ask("GET", path, { signal: ended });
      draw();
    } catch (problem) {
      if (problem.status === 404 && !gone) location.hash = "#/";
    }
  }

  async function look() {
    if (!router()?.wakes || !cell.placement.includes("/")) return;
    // What has requests on their way to it is awake.
    if (cell.in_flight) { machine = { asleep: false, state: "started" }; return draw(); }
    machine = await ask("GET", `${path}/machine`, { signal: ended });
    draw();
  }

  const quietly = (work) => work().catch(() => {});
  addEventListener("live", ({ detail: { kind, data } }) => {
    if (kind === "many") return;
    if (kind === "cells" && !data.cells.some((one) => one.name === name)) return;
    load();
    seen.read();
    if (kind === "cells") quietly(look);
    else { quietly(history); form.reload(); }
  }, { signal: ended });
  let count = 0;
  const ticks = setInterval(() => {
    if (document.hidden) return;
    load();
    seen.read();
    count += 1;
    if (count % 5 === 0) quietly(look);
  }, EVERY);
  ended.addEventListener("abort", () => clearInterval(ticks));
  draw();
  seen.read();
  quietly(look);
  await history();
}

/** A cell that is still to be. */
export async function newCell() {
  const wrong = h("ul", { class: "wrong", role: "alert" });
  const field = (id, label, hint, more = {}) => h("div", { class: "field" },
    h("label", { for: id }, label), h("input", { type: "text", id, autocomplete: "off", "aria-describedby": `${id}-hint`, ...more }),
    h("p", { class: "hint", id: `${id}-hint` }, hint));
  const value = (id) => document.getElementById(id).value.trim();
  const add = async (event) => {
    event.preventDefault();
    const name = value("name");
    const place = value("place");
    const entry = place.includes(":") ? { address: place } : { machine: place, ...(value("app") && { app: value("app") }) };
    const hosts = value("hosts").split(/[\s,]+/).filter(Boolean);
    if (hosts.length) entry.hosts = hosts;
    try {
      await ask("PUT", `/v1/cells/${encodeURIComponent(name)}/entry`, { body: entry });
      toast(`${name} is added.`);
      await inForce(name);
      location.hash = `#/cells/${name}`;
    } catch (problem) {
      const lines = (problem.problems ?? []).map(({ path, what, fix }) => `${path.replace(`$.cells.${name}.`, "")}: ${what}; ${fix}`);
      wrong.replaceChildren(...(lines.length ? lines : [problem.message]).map((line) => h("li", {}, line)));
    }
  };
  show("Add a cell", h("p", { class: "soft" }, h("a", { href: "#/" }, "Cells"), " /"), h("h1", {}, "Add a cell"),
    h("form", { class: "sheet", onsubmit: add },
      field("name", "Name", "One label of a host name: it stands before the domain.", { required: true, pattern: "[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?" }),
      field("place", "Machine or address", "The id of a Fly Machine, or host:port.", { required: true, class: "mono" }),
      field("app", "App", "The Fly app of the machine, unless the registry's defaults name it.", { class: "mono" }),
      field("hosts", "Further hosts", "With commas between, such as www.alice.org, alice.org."),
      wrong, h("div", { class: "row" }, h("button", { class: "main" }, "Add"), h("a", { class: "button", href: "#/" }, "Cancel"))));
  document.getElementById("name").focus();
}
