// The admin API. The token is kept in this module's memory, and nowhere else.

let token = null;
/** Ends what is heard for who is signed in. */
let ended = new AbortController();
/** Who is signed in: `{ name, role }`, or null. */
export let session = null;

const RANK = ["read", "operate", "edit"];
/** Whether who is signed in may do what needs this role. */
export const may = (role) => session !== null && RANK.indexOf(session.role) >= RANK.indexOf(role);

/** What the router answered instead of what was wanted. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `The router says ${status}.`);
    this.status = status;
    this.kind = body.error;
    this.problems = body.problems ?? [];
  }
}

function headers(more = {}) {
  const all = { "cell-router-client": "page", ...more };
  if (token) all.authorization = `Bearer ${token}`;
  return all;
}

async function send(method, path, { body, etag, last, query, signal } = {}) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  const more = {};
  if (etag) more["if-match"] = etag;
  if (last) more["last-event-id"] = last;
  if (body !== undefined) more["content-type"] = method === "PATCH" ? "application/merge-patch+json" : "application/json";
  const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  const answer = await fetch(path + search, { method, headers: headers(more), body: sent, signal, cache: "no-store" });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 401 && session) { signOut(); dispatchEvent(new Event("signed-out")); }
  throw new Problem(answer.status, told);
}

/** Asks for JSON. */
export const ask = async (method, path, options) => (await send(method, path, options)).json();

/** Asks for a text, and its tag. */
export async function read(path) {
  const answer = await send("GET", path);
  return { text: await answer.text(), etag: answer.headers.get("etag") };
}

/** Signs in; without a token as whoever needs none. */
export async function signIn(given) {
  token = given;
  try {
    session = await ask("GET", "/v1/session");
  } catch (problem) {
    token = null;
    throw problem;
  }
}

export function signOut() {
  ended.abort();
  ended = new AbortController();
  session = null;
  token = null;
}

/** Hears of changes for as long as somebody is signed in: each as a `live` event on the window. After a break it goes on where
 *  it was; `EventSource` could not send the token. */
export async function listen(state) {
  const { signal } = ended;
  let last = null;
  for (let pause = 500; !signal.aborted; pause = Math.min(pause * 2, 15000)) {
    try {
      const answer = await send("GET", "/v1/events", { last, signal });
      state(true);
      let rest = "";
      for await (const part of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
        pause = 500;
        const events = (rest + part).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const fields = Object.fromEntries(event.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
          if (!fields.event) continue;
          last = fields.id ?? last;
          dispatchEvent(new CustomEvent("live", { detail: { kind: fields.event, data: JSON.parse(fields.data) } }));
        }
      }
    } catch { /* Tried again below. */ }
    if (signal.aborted) return;
    state(false);
    await new Promise((done) => setTimeout(done, pause));
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Edits many cells: asks for the word where many would go; null if it is not given. */
export async function edit(method, path, options, confirm) {
  try {
    return await ask(method, path, options);
  } catch (problem) {
    if (problem.kind !== "unconfirmed") throw problem;
    if (!(await confirm(problem.message))) return null;
    return ask(method, path, { ...options, query: { ...options?.query, confirm_unplug: true } });
  }
}

/** Waits until a cell of this name is in force, for five seconds at most: what is stored is in force a moment later. */
export async function inForce(name) {
  for (let tries = 0; tries < 50; tries += 1) {
    try {
      return await ask("GET", `/v1/cells/${encodeURIComponent(name)}`);
    } catch { await new Promise((done) => setTimeout(done, 100)); }
  }
  throw new Error(`${name} is stored, and not in force yet.`);
}
