// Chromium, told line by line what to do: a JSON object in, a JSON object out. See chromium.py.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const [modules, profile, ...flags] = process.argv.slice(2);
const { chromium } = createRequire(modules + "/")("playwright-core");
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, ignoreHTTPSErrors: true, args: flags,
});

/** A page at `url`, gone when `use` is done. */
async function at(url, use) {
  const page = await browser.newPage();
  try {
    await page.goto(url, { waitUntil: "domcontentloaded", timeout: 60_000 });
    return await use(page);
  } finally {
    await page.close();
  }
}

/** Random bytes, made in the page, and their SHA-256. */
const make = async ({ size }) => {
  const pieces = [];
  for (let at = 0; at < size; at += 65536) pieces.push(crypto.getRandomValues(new Uint8Array(Math.min(65536, size - at))));
  const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
  globalThis.sha256 = async (blob) => hex(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  globalThis.made = new Blob(pieces);
  return globalThis.sha256(globalThis.made);
};

const actions = {
  /** Ends on the cell's page, whatever was shown until then. */
  navigate: ({ url, wait, picture }) => at(url, async (page) => {
    const shown = [await page.title()];
    if (picture) await page.screenshot({ path: picture.replace(".png", "-first.png") });
    await page.waitForSelector(wait, { state: "attached", timeout: 60_000 });
    shown.push(await page.title());
    if (picture) await page.screenshot({ path: picture });
    return { shown };
  }),

  /** XMLHttpRequest, for fetch does not tell how much has been sent. */
  upload: ({ url, to, size }) => at(url, async (page) => {
    const sha256 = await page.evaluate(make, { size });
    return await page.evaluate(({ to, sha256 }) => new Promise((done, fail) => {
      const request = new XMLHttpRequest(), progress = [];
      request.open("PUT", to);
      request.upload.onprogress = (sent) => progress.push(sent.loaded);
      request.onload = () => done({ sha256, status: request.status, answer: request.responseText, progress });
      request.onerror = () => fail(new Error("the upload failed"));
      request.send(globalThis.made);
    }), { to, sha256 });
  }),

  /** fetch with a stream for a body, which needs HTTP/2. */
  stream: ({ url, to, size }) => at(url, async (page) => {
    const sha256 = await page.evaluate(make, { size });
    return await page.evaluate(async ({ to, sha256 }) => {
      const answer = await fetch(to, { method: "PUT", body: globalThis.made.stream(), duplex: "half" });
      return { sha256, status: answer.status, answer: await answer.text() };
    }, { to, sha256 });
  }),

  /** fetch, read piece by piece. */
  download: ({ url, from }) => at(url, async (page) => {
    await page.evaluate(make, { size: 1 });
    return await page.evaluate(async ({ from }) => {
      const answer = await fetch(from), pieces = [];
      for (const reader = answer.body.getReader();;) {
        const { done, value } = await reader.read();
        if (done) break;
        pieces.push(value);
      }
      return { status: answer.status, pieces: pieces.length, sha256: await globalThis.sha256(new Blob(pieces)) };
    }, { from });
  }),

  /** A WebSocket that says hello and echoes. */
  socket: ({ url, to }) => at(url, (page) => page.evaluate((to) => new Promise((done, fail) => {
    const socket = new WebSocket(to), sent = "ü🌍".repeat(20_000), heard = [];
    socket.onopen = () => socket.send(sent);
    socket.onmessage = ({ data }) => {
      heard.push(data);
      if (data === sent) socket.close(4002, "enough");
    };
    socket.onclose = ({ code, wasClean }) => done({ code, wasClean, heard: heard.length, echoed: heard.includes(sent) });
    setTimeout(() => fail(new Error(`heard ${heard.length} messages`)), 60_000);
  }), to)),

  /** Events over several connections: the cell ends each after three. */
  events: ({ url, from, count }) => at(url, (page) => page.evaluate(({ from, count }) => new Promise((done, fail) => {
    const source = new EventSource(from), heard = [];
    source.onmessage = ({ data }) => {
      heard.push(Number(data));
      if (heard.length >= count) {
        source.close();
        done({ heard });
      }
    };
    setTimeout(() => fail(new Error(`heard ${heard}`)), 60_000);
  }), { from, count })),

  /** A form, filled in and sent as a person would. */
  form: ({ url, title }) => at(url, async (page) => {
    await page.waitForSelector("input[name=title]", { timeout: 60_000 });
    await page.fill("input[name=title]", title);
    await page.fill("[name=body]", "written in a browser");
    await Promise.all([page.waitForLoadState("load"), page.click("form button[type=submit], form button")]);
    await page.waitForSelector(`text=${title}`, { timeout: 30_000 });
    return { url: page.url() };
  }),

  /** Several tabs at once. */
  tabs: async ({ url, wait, count }) => {
    const tabs = Array.from({ length: count }, () => at(url, async (page) => {
      await page.waitForSelector(wait, { state: "attached", timeout: 60_000 });
      return page.title();
    }));
    return { titles: await Promise.all(tabs) };
  },
};

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...wanted } = JSON.parse(line);
  const done = await actions[action](wanted).catch((error) => ({ error: String(error) }));
  console.log(JSON.stringify(done));
}
await browser.close();
