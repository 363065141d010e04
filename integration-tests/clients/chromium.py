"""Chromium: navigation to a sleeping cell, uploads with progress, streams, WebSockets, events, many tabs."""

import contextlib
import json
import select
import subprocess
import sys

from system import CELLS as FOLDER
from system import HERE, PATIENCE_S, ROOT, expect

NEEDS = ["chromium", "node", "node:playwright-core"]
PROBE = f"'{sys.executable}' '{FOLDER / 'probe.py'}'"
CELLS = {
    "probe": {"command": PROBE},
    "sleeper": {"command": f'sh -c "sleep 4; exec {PROBE}"', "entry": {"waking_page_after_ms": 500}},
}
MIB = 1 << 20
# What only the page of a cell has.
PAGE = "meta[name=fly-instance-id]"


class Browser:
    """One Chromium, driven from its own process."""

    def __init__(self, profile):
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync"]
        self.process = subprocess.Popen(
            ["node", HERE / "chromium.mjs", ROOT / "target" / "clients", profile, *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        expect(self._answer().get("ready"), "Chromium did not start")

    def _answer(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        expect(ready, "the browser did not answer")
        line = self.process.stdout.readline()
        expect(line, "the browser ended")
        return json.loads(line)

    def do(self, action, **wanted):
        self.process.stdin.write(json.dumps({"action": action, **wanted}) + "\n")
        done = self._answer()
        expect("error" not in done, done.get("error"))
        return done

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def run(system):
    with contextlib.closing(Browser(system.work / "profile")) as browser:
        pages(system, browser)
        bodies(system, browser)
        conversations(system, browser)
        secure(system, browser)


def pages(system, browser):
    for way in system.ways("alice"):
        with system.check("Chromium", "navigation ends on the cell's page", way):
            browser.do("navigate", url=f"{way.url}/", wait=PAGE, picture=picture(system, way))
        # Each keeps a connection for its events, and a browser opens six to a host.
        with system.check("Chromium", "five tabs at once, one wake", way) as check:
            browser.do("tabs", url=f"{way.url}/", wait=PAGE, count=5)
            wakes = sum('"waking"' in line and '"alice"' in line for line in system.log(check.first_line))
            expect(wakes <= way.asleep, f"{wakes} wakes")
        with system.check("Chromium", "a post by the page's form", way):
            browser.do("form", url=f"{way.url}/", title=f"By form {way.via} {way.asleep}")


    for way in system.ways("sleeper", via=("router",), asleep=(True,)):
        with system.check("Chromium", "a page that waits gives way to that of a cell that starts slowly", way) as check:
            done = browser.do("navigate", url=f"{way.url}/", wait="pre:has-text('x-request-id')", picture=picture(system, way))
            expect(done["shown"][0] != done["shown"][1] == "", f"{done}")
            statuses = [record["status"] for record in check.records() if record["path"] == "/"]
            expect(statuses[0] == 503 and statuses[-1] == 200, f"{statuses}")


def picture(system, way):
    if not system.pictures:
        return None
    return str(system.pictures / f"{way.cell}-{way.via}-{'asleep' if way.asleep else 'awake'}.png")


def bodies(system, browser):
    size = (50 if system.fast else 200) * MIB
    for way in system.ways("bob"):
        with system.check("Chromium", f"an upload of {size // MIB} MiB with progress", way) as check:
            # The page is another cell's, which may not tell how the cross-origin upload goes: so it is the cell's own.
            done = browser.do("upload", url=f"{way.url}/up", to="/files/browser.bin", size=size)
            check.same(json.loads(done["answer"])["sha256"], done["sha256"])
            rises = done["progress"] == sorted(done["progress"]) and done["progress"][-1] == size
            expect(rises, f"progress {done['progress'][:9]}")
        sent = done["sha256"]
        with system.check("Chromium", f"fetch of {size // MIB} MiB, read as a stream", way) as check:
            done = browser.do("download", url=f"{way.url}/up", **{"from": "/files/browser.bin"})
            check.same(done["sha256"], sent)
            expect(done["pieces"] > 3, f"{done['pieces']} pieces")


def conversations(system, browser):
    for way in system.ways("carol"):
        with system.check("Chromium", "a WebSocket echoes, and closes with its code", way):
            done = browser.do("socket", url=f"{way.url}/up", to=f"ws://{way.host}:{way.port}/live")
            expect(done["echoed"] and done["wasClean"] and done["code"] == 4002, f"{done}")
    for way in system.ways("probe"):
        with system.check("Chromium", "EventSource comes back for more, and misses none", way):
            done = browser.do("events", url=f"{way.url}/", count=8, **{"from": "/events"})
            expect(done["heard"] == list(range(1, 9)), f"{done}")


def secure(system, browser):
    for way in system.ways("probe", via=("router",)):
        url = f"https://probe.localhost:{system.port['tls']}"
        with system.check("Chromium", "fetch with a stream for a body, over TLS and HTTP/2", way) as check:
            done = browser.do("stream", url=f"{url}/", to="/stream", size=20 * MIB)
            check.same(json.loads(done["answer"])["sha256"], done["sha256"])
