// The shell: signing in, which view is shown, and what holds for all of them.

import { ask, listen, session, signIn, signOut } from "./api.js";
import { h, main, number, show, toast } from "./dom.js";
import { cells } from "./cells.js";
import { cell, newCell } from "./cell.js";
import { history } from "./history.js";
import { explain } from "./explain.js";

const VIEWS = [
  [/^#\/cells\/new$/, newCell],
  [/^#\/cells\/([^/]+)$/, cell],
  [/^#\/history(?:\/([a-z0-9-]+))?$/, history],
  [/^#\/explain$/, explain],
];

/** Ends what the view before had begun. */
let leave = () => {};

async function route() {
  leave();
  const ended = new AbortController();
  leave = () => ended.abort();
  if (!session) return door();
  const hash = location.hash || "#/";
  const [at, view] = VIEWS.map(([pattern, view]) => [hash.match(pattern), view]).find(([at]) => at) ?? [[], cells];
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === "#/" ? view === cells || view === cell || view === newCell : hash.startsWith(link.hash);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    await view({ ended: ended.signal, name: at[1] && decodeURIComponent(at[1]), router: () => standing });
  } catch (problem) {
    if (ended.signal.aborted || !session) return;
    show("Not shown", h("h1", {}, "This cannot be shown"), h("p", { class: "wrong" }, problem.message), h("p", {}, h("a", { href: "#/" }, "All cells")));
  }
}

function door(wrong = "") {
  const input = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true, "aria-describedby": "token-hint" });
  const enter = async (event) => {
    event.preventDefault();
    try {
      await signIn(input.value.trim());
      await begin();
    } catch (problem) {
      door(problem.message);
    }
  };
  show("Sign in", h("form", { class: "sheet signin", onsubmit: enter },
    h("h1", {}, "Sign in"),
    h("input", { type: "text", autocomplete: "username", value: "token", hidden: true }),
    h("div", { class: "field" }, h("label", { for: "token" }, "Token"), input,
      h("p", { class: "hint", id: "token-hint" }, "As ", h("code", {}, "cell-router token"), " printed it. It is kept until this page is closed or loaded anew."),
      h("p", { class: "wrong", role: "alert" }, wrong)),
    h("button", { class: "main" }, "Sign in")));
  document.getElementById("leave").hidden = true;
  document.querySelector("nav").hidden = true;
  const alarm = document.getElementById("alarm");
  alarm.className = "";
  delete alarm.dataset.said;
  document.getElementById("standing").replaceChildren();
  document.getElementById("pulse").textContent = "";
  input.focus();
}

/** The router, as far as all views show it. */
let standing = null;

async function look() {
  if (!session || document.hidden) return;
  try {
    standing = await ask("GET", "/v1/router");
  } catch { return; }
  const { version, stored, unreadable, cells, flags, refused, in_flight, held, waking, breakers_open } = standing;
  document.getElementById("standing").replaceChildren(
    h("span", {}, `${number(cells)} cells`), h("span", {}, "registry ", h("code", {}, version)),
    h("span", {}, `${number(in_flight)} in flight`), held ? h("span", {}, `${number(held)} held`) : "",
    waking ? h("span", {}, `${waking} waking`) : "", breakers_open ? h("span", {}, breakers_open === 1 ? "1 breaker open" : `${breakers_open} breakers open`) : "",
    h("span", {}, `${session.name} (${session.role})`));
  const alarm = document.getElementById("alarm");
  const lines = refused.map(({ line, column, path, what, fix }) => h("li", {}, `Line ${line}, column ${column}: ${path}: ${what}; ${fix}`));
  const said = [];
  if (unreadable) said.push(`The registry cannot be read or edited now; what is in force serves on. ${unreadable}`);
  else if (stored !== version && refused.length) said.push("The registry as it is stored is broken, and not in force. The last good version serves on.", h("ul", {}, lines.slice(0, 5)), h("a", { href: "#/history" }, "Bring back an earlier version"));
  else if (flags.length) said.push(h("a", { href: "#/?state=flagged" }, `${flags.length} ${flags.length === 1 ? "entry is" : "entries are"} broken`), " and not in force as written.");
  if (alarm.dataset.said !== JSON.stringify([version, stored, unreadable, flags])) {
    alarm.dataset.said = JSON.stringify([version, stored, unreadable, flags]);
    alarm.replaceChildren(...said);
    alarm.className = said.length ? "on" : "";
  }
}

async function begin() {
  document.getElementById("leave").hidden = session.name === "anybody";
  document.querySelector("nav").hidden = false;
  listen((on) => {
    const pulse = document.getElementById("pulse");
    pulse.textContent = session ? (on ? "live" : "offline") : "";
    pulse.className = on ? "on" : "";
  });
  await look();
  await route();
}

addEventListener("hashchange", () => { route().then(() => main().focus({ preventScroll: true })); scrollTo(0, 0); });
addEventListener("live", ({ detail }) => { if (detail.kind === "registry" || detail.kind === "resync") look(); });
addEventListener("signed-out", () => { leave(); door("This token is not known any more."); });
addEventListener("keydown", (event) => {
  const search = document.getElementById("search");
  if (event.key === "/" && search && !event.target.closest("input, textarea, select, dialog")) {
    event.preventDefault();
    search.focus();
  }
});
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name !== "AbortError") toast(event.reason?.message ?? "Something went wrong.", true);
});
document.getElementById("leave").addEventListener("click", () => { leave(); signOut(); door(); });
setInterval(look, 10000);

try {
  await signIn(null);
  await begin();
} catch {
  door();
}
