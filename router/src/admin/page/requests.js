// What one cell is asked: its uploads under way, and its last requests.

import { ask } from "./api.js";
import { ago, bytes, h, span } from "./dom.js";

/** How many of the last requests are shown unless all are asked for. */
const FEW = 8;
/** How long an upload may be silent before that is worth a word, in milliseconds. */
const SILENT = 5000;

/** Two parts of a page, and what reads them anew. */
export function requests(path, ended) {
  const uploads = h("section", { class: "sheet", hidden: true });
  const last = h("section", { class: "sheet" });
  let [asking, known, all] = [false, null, false];
  const more = h("button", { type: "button", class: "quiet", onclick: () => { all = !all; draw(JSON.parse(known)); } });

  function upload({ began, method, path, bytes: came, of, age_ms: age, silent_ms: silent }) {
    const what = `${method} ${path}`;
    return h("li", {},
      h("div", { class: "row spread" }, h("code", {}, what),
        h("span", { class: "number" }, of === null ? `${bytes(came)}, of unknown length` : `${bytes(came)} of ${bytes(of)} · ${Math.floor((100 * came) / (of || 1))} %`)),
      of !== null && h("progress", { max: of || 1, value: came, "aria-label": what }),
      h("p", { class: "hint" }, h("time", { datetime: began }, `Began ${span(age)} ago`), silent >= SILENT && h("span", { class: "tag warn" }, `no byte for ${span(silent)}`)));
  }

  function row({ at, method, path, status, lane, reason, error_by: by, bytes_in: came, bytes_out: went, duration_ms: took }) {
    const kind = status >= 500 ? "bad" : status >= 400 ? "warn" : null;
    return h("tr", {},
      h("td", { class: "soft" }, h("time", { datetime: at, title: at }, ago(Date.parse(at) / 1000))),
      h("td", { class: "path" }, h("code", {}, `${method} ${path}`)),
      h("td", { class: "number" }, kind ? h("span", { class: `tag ${kind}` }, String(status)) : String(status)),
      h("td", {}, lane, " ", h("span", { class: "soft" }, reason)),
      h("td", {}, by && h("span", { class: "tag bad" }, by)),
      h("td", { class: "number wide" }, bytes(came)), h("td", { class: "number wide" }, bytes(went)),
      h("td", { class: "number" }, span(took)));
  }

  function draw(requests) {
    const held = document.activeElement === more;
    more.hidden = requests.length <= FEW;
    more.textContent = all ? "Fewer" : `All ${requests.length}`;
    more.setAttribute("aria-expanded", String(all));
    last.replaceChildren(h("div", { class: "row spread" }, h("h2", {}, "Last requests"), more),
      requests.length ? h("div", { class: "table" }, h("table", {},
        h("caption", { class: "skip" }, "Last requests, the newest first"),
        h("thead", {}, h("tr", {}, [["Ended"], ["Request"], ["Status", "number"], ["Lane, and why"], ["Error by"], ["In", "number wide"], ["Out", "number wide"], ["Took", "number"]]
          .map(([text, kind]) => h("th", { scope: "col", class: kind ?? null }, text)))),
        h("tbody", {}, requests.slice(0, all ? requests.length : FEW).map(row))))
        : h("p", { class: "soft" }, "None since the router's start, or none for long."));
    if (held) more.focus();
  }

  /** Reads anew, never twice at once. What has not changed stays as it is, so that it can be selected. */
  async function read() {
    if (asking) return;
    asking = true;
    try {
      const seen = await ask("GET", `${path}/requests`, { signal: ended });
      uploads.hidden = !seen.uploads.length;
      uploads.replaceChildren(h("h2", {}, "Uploads under way"), h("ul", { class: "uploads" }, seen.uploads.map(upload)));
      const now = JSON.stringify(seen.requests);
      if (now === known) last.querySelectorAll("time").forEach((time) => { time.textContent = ago(Date.parse(time.dateTime) / 1000); });
      else { known = now; draw(seen.requests); }
    } catch (problem) {
      // Of an entry that was never good there is nothing to see.
      if (ended.aborted || problem.status === 404) return;
      [known, uploads.hidden] = [null, true];
      last.replaceChildren(h("h2", {}, "Last requests"), h("p", { class: "wrong" }, problem.message));
    } finally { asking = false; }
  }

  return { parts: [uploads, last], read };
}
