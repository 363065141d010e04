// What was changed, when, by whom; and back.

import { ask, edit, may } from "./api.js";
import { changes, confirmed, h, show, toast } from "./dom.js";

export async function history({ ended, name: cell }) {
  const list = h("ol", { class: "history" });
  const more = h("button", { type: "button", onclick: () => load() }, "Older");
  let [next, newest, loaded, asking] = [null, null, 0, null];
  show("History", h("div", { class: "row spread" }, h("h1", {}, cell ? `History of ${cell}` : "History"), cell && h("a", { href: "#/history" }, "Of all cells")),
    h("div", { class: "sheet table" }, list), h("div", { class: "pager" }, more));

  async function undo(to, version) {
    const etag = `"${newest}"`;
    if (!(await confirmed(`Bring back version ${version}, with all cells as they were then? What is there now stays in the history.`, "Bring it back", false))) return;
    try {
      const done = await edit("POST", "/v1/registry/undo", { body: { to }, etag }, (why) => confirmed(why, "Yes, do it"));
      if (!done) return;
      toast(`The registry is at version ${done.version}.`);
      await load(true);
    } catch (problem) { toast(problem.problems[0] ? `${problem.message} ${problem.problems[0].path}: ${problem.problems[0].what}` : problem.message, true); }
  }

  function entry(past, first) {
    const { at, who, through, what, version, of, confirmed: word } = past;
    const diff = h("div");
    const look = async () => {
      if (diff.childNodes.length) return diff.replaceChildren();
      const told = of ? await ask("GET", "/v1/registry/diff", { query: { from: of, to: version } }) : { changes: [] };
      diff.replaceChildren(of ? changes(told.changes) : h("p", { class: "soft" }, "The history begins here."));
    };
    return h("li", {},
      h("div", { class: "row spread" },
        h("div", {}, h("strong", {}, who), " ", h("span", { class: "soft" }, through, " · ", h("time", { datetime: at }, `${at.slice(0, 10)} ${at.slice(11, 19)}`), " UTC · ", h("code", {}, version)),
          first && h("span", { class: "tag good" }, "now"), word && h("span", { class: "tag warn" }, "confirmed")),
        h("div", { class: "row" }, h("button", { type: "button", onclick: look }, "Diff"),
          may("edit") && !first && h("button", { type: "button", onclick: () => undo(version, version) }, "Bring back"),
          may("edit") && first && of && h("button", { type: "button", onclick: () => undo(of, of) }, "Undo"))),
      h("ul", { class: "changes" }, what.map((one) => h("li", { class: { "+": "plus", "-": "minus", "~": "tilde" }[one[0]] ?? null }, one))), diff);
  }

  async function load(anew = false) {
    asking?.abort();
    asking = new AbortController();
    const signal = AbortSignal.any([asking.signal, ended]);
    const page = await ask("GET", "/v1/registry/versions", { query: { cell, before: anew ? null : next }, signal });
    if (anew || !loaded) {
      const stored = cell ? (await ask("GET", "/v1/router", { signal })).stored : page.versions[0]?.version;
      [newest, loaded] = [stored, 0];
      list.replaceChildren();
    }
    list.append(...page.versions.map((past, index) => entry(past, !loaded && !index && past.version === newest)));
    loaded += page.versions.length;
    if (!loaded) list.append(h("li", { class: "empty" }, "Nothing on record."));
    next = page.next;
    more.hidden = next === null;
  }

  addEventListener("live", ({ detail }) => { if (detail.kind === "registry" || detail.kind === "resync") load(true).catch(() => {}); }, { signal: ended });
  await load();
}
