// Where a request would go, and why.

import { ask } from "./api.js";
import { h, show } from "./dom.js";

export async function explain({ ended }) {
  const outcome = h("div", { role: "status" });
  const wrong = h("p", { class: "wrong", role: "alert" });
  const url = h("input", { type: "url", id: "url", required: true, placeholder: "https://alice.example.com/posts", class: "mono", autocomplete: "off" });
  const method = h("select", { id: "method" }, ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"].map((one) => h("option", {}, one)));
  const length = h("input", { type: "text", id: "length", inputmode: "numeric", placeholder: "none", pattern: "[0-9]*" });
  const asleep = h("input", { type: "checkbox", id: "asleep" });
  const send = async (event) => {
    event.preventDefault();
    wrong.replaceChildren();
    const body = { method: method.value, url: url.value.trim(), asleep: asleep.checked };
    if (length.value.trim()) body.body_bytes = Number(length.value);
    try {
      const told = await ask("POST", "/v1/explain", { body, signal: ended });
      outcome.replaceChildren(h("section", { class: "sheet" }, h("dl", { class: "facts" }, Object.keys(told).filter((row) => told[row] !== null || row === "cell").flatMap((row) => [
        h("dt", {}, row === "instruction" ? "sends" : row.replaceAll("_", " ")),
        h("dd", {}, row === "cell" ? (told.cell ? h("a", { href: `#/cells/${told.cell}` }, told.cell) : "none") : row === "lane" ? h("span", { class: "tag calm" }, told.lane) : told[row])]))));
    } catch (problem) {
      outcome.replaceChildren();
      wrong.textContent = problem.message;
    }
  };
  show("Explain", h("h1", {}, "Where would a request go?"),
    h("form", { class: "sheet", onsubmit: send },
      h("div", { class: "field" }, h("label", { for: "url" }, "URL"), url),
      h("div", { class: "row" },
        h("div", { class: "field" }, h("label", { for: "method" }, "Method"), method),
        h("div", { class: "field" }, h("label", { for: "length" }, "Body in bytes"), length)),
      h("div", { class: "field row" }, asleep, h("label", { for: "asleep" }, "As if its machine were asleep")),
      h("button", { class: "main" }, "Explain"), wrong,
      h("p", { class: "hint" }, "By the registry in force and the cell as it is now. Nothing is sent.")),
    outcome);
  url.focus();
}
