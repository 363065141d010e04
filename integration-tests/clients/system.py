"""The whole system under test: starts `fly-local`, puts cells to sleep, reads the access log."""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
CELLS = HERE / "cells"
# How long one command of a client, or one wait of ours, may take at most.
PATIENCE_S = 150


class Wrong(Exception):
    """A client saw something else than it should have."""


def expect(condition, text):
    if not condition:
        raise Wrong(text)


def sha256(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def until(condition, what, seconds=PATIENCE_S, pause=0.02):
    """Asks again and again, with a pause, until `condition` answers."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        expect(time.monotonic() < end, f"waited {seconds} s for {what}")
        time.sleep(pause)
    return found


@dataclasses.dataclass(frozen=True)
class Way:
    """How a client comes to a cell: through the edge or straight to a router, while the cell sleeps or not."""

    cell: str
    via: str
    asleep: bool
    port: int

    @property
    def host(self):
        return f"{self.cell}.localhost"

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def __str__(self):
        return f"{self.via}, {'asleep' if self.asleep else 'awake'}"


class Check:
    """One thing that one client does, one way. What is wrong with it is raised."""

    def __init__(self, system, cell):
        self.system, self.cell = system, cell
        self.sha256_equal = None
        self.first_line = system.log_length()

    def sh(self, *command, good=(0,), timeout=PATIENCE_S, **options):
        """Runs a command; its output as text."""
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, errors="replace", timeout=timeout,
            stdin=options.pop("stdin", subprocess.DEVNULL), **options,
        )
        expect(done.returncode in good, f"{command[0]} exited {done.returncode}: {(done.stderr or done.stdout)[-600:]}")
        return done.stdout

    def same(self, one, other):
        """Both SHA-256 are equal."""
        self.sha256_equal = self.sha256_equal is not False and one == other
        expect(one == other, f"SHA-256 differs: {one} and {other}")

    def records(self):
        """The lines of the access log for this cell since the check began; waits for the first."""
        until(lambda: self.system.records(self.cell, self.first_line), "a line in the access log", 10)
        return self.system.records(self.cell, self.first_line)

    def lanes(self):
        try:
            found = {f"{record['lane']}/{record['reason']}" for record in self.records()}
        except Wrong:
            return "-"
        return " ".join(sorted(found))


class System:
    """`fly-local` with its routers and cells. Everything ends with it."""

    def __init__(self, cells, given):
        self.fast, self.pictures = given.fast, given.pictures
        self.rows = []
        self.folder = tempfile.TemporaryDirectory(prefix="clients-")
        self.work = pathlib.Path(self.folder.name)
        self._lines, self._lock = [], threading.Lock()
        self.ca = certificates(self.work)
        (self.work / "cells.json").write_text(json.dumps(cells))
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        binaries = target / ("release" if given.release else "debug")
        subprocess.run(
            [os.environ.get("CARGO", "cargo"), "build", "--quiet", "--workspace", "--bins", *(["--release"] if given.release else [])], cwd=ROOT, check=True
        )
        described = self.work / "described.json"
        self.process = subprocess.Popen(
            [
                binaries / "fly-local", "--listen", "127.0.0.1:0", "--data", self.work / "data", "--idle-stop-s", "0",
                "--cells", self.work / "cells.json", "--direct", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0",
                "--tls-certificates", self.ca / "served", "--describe", described,
            ],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        try:
            until(lambda: described.exists() or self.process.poll() is not None, "fly-local to start")
            expect(self.process.poll() is None, "fly-local ended:\n" + "\n".join(self._lines))
            until(lambda: described.read_text().endswith("}"), "fly-local's description", 5)
        except Wrong:
            self.stop()
            raise
        self.described = json.loads(described.read_text())
        self.port = {
            "edge": port_of(self.described["edge"]),
            "router": port_of(self.described["direct"]),
            "tls": port_of(self.described["tls"]),
        }

    def _read(self):
        for line in self.process.stderr:
            with self._lock:
                self._lines.append(line.rstrip("\n"))

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.folder.cleanup()

    def log_length(self):
        with self._lock:
            return len(self._lines)

    def log(self, first=0):
        with self._lock:
            return self._lines[first:]

    def records(self, cell, first=0):
        """The access log's lines for a cell, from line `first` of all that was written on. An instruction to replay and
        its rescue are two."""
        found = []
        for line in self.log(first):
            name, _, text = line.partition(" | ")
            if name == "cell-router" and '"lane"' in text:
                record = json.loads(text)
                if record.get("cell") == cell:
                    found.append(record)
        return found

    def ways(self, cell, via=("edge", "router"), asleep=(True, False)):
        """Every way to a cell."""
        for hop in via:
            for sleeps in asleep:
                yield Way(cell, hop, sleeps, self.port[hop])

    def _api(self, cell, call, method="POST"):
        entry = self.described["cells"][cell]
        host = self.described["api"].removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=70)
        with contextlib.closing(connection):
            path = f"/v1/apps/{entry['app']}/machines/{entry['machine']}{call}"
            connection.request(method, path, headers={"Authorization": f"Bearer {self.described['token']}"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def sleep(self, cell):
        """Stops a cell, as one that was idle has."""
        def stopped():
            status, answer = self._api(cell, "", "GET")
            if status == 200 and json.loads(answer)["state"] not in ("stopped", "stopping"):
                self._api(cell, "/stop")
            return status == 200 and json.loads(answer)["state"] == "stopped"
        until(stopped, f"{cell} to stop", pause=0.25)

    def wake(self, cell):
        """Starts a cell, and waits until it listens."""
        address = ("127.0.0.1", self.described["cells"][cell]["port"])
        def listens():
            with contextlib.suppress(OSError), socket.create_connection(address, 5):
                return True
            self._api(cell, "/start")
        until(listens, f"{cell} to start", pause=0.25)

    @contextlib.contextmanager
    def check(self, client, did, way):
        """One check: puts the cell into the state that `way` names; a row of the table comes of it."""
        began = time.monotonic()
        self.sleep(way.cell) if way.asleep else self.wake(way.cell)
        check, result = Check(self, way.cell), "passed"
        try:
            yield check
        except Exception as problem:
            result = f"FAILED: {problem}" if isinstance(problem, Wrong) else f"FAILED: {problem!r}"
            if not isinstance(problem, (Wrong, subprocess.TimeoutExpired, OSError)):
                traceback.print_exc()
        self.row(client, did, str(way), check.lanes(), result, check.sha256_equal, time.monotonic() - began)
        if result != "passed":
            for line in self.log(check.first_line)[-5:]:
                print(f"    {line[:700]}", file=sys.stderr)

    def row(self, client, did, way, lanes, result, sha256_equal=None, seconds=0.0):
        """Adds a row to the table, and prints it."""
        equal = {None: "", True: "equal", False: "DIFFERS"}[sha256_equal]
        self.rows.append((client, did, way, lanes, result, equal))
        print(f"{client:10} {did:58} {way:15} {lanes:30} {result} {equal} ({seconds:.1f} s)", flush=True)

    def payload(self, name, size):
        """A file of random bytes, made once."""
        file = self.work / f"{name}.bin"
        if not file.exists():
            with open(file, "wb") as out:
                for at in range(0, size, 1 << 20):
                    out.write(os.urandom(min(1 << 20, size - at)))
        return file, sha256(file)


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def certificates(work):
    """A throw-away authority, and a certificate of it for the names that the checks use."""
    folder = work / "ca"
    served = folder / "served"
    served.mkdir(parents=True)
    names = "DNS:localhost,DNS:alice.localhost,DNS:bob.localhost,DNS:carol.localhost,DNS:probe.localhost,DNS:grpc.localhost"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256"]
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Clients CA",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", *curve, "-keyout", "served/localhost.key", "-out", "leaf.csr", "-subj", "/CN=localhost")
    (folder / "leaf.ext").write_text(
        f"subjectAltName={names}\nextendedKeyUsage=serverAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=CA:FALSE\n"
    )
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30",
            "-sha256", "-extfile", "leaf.ext", "-out", "leaf.pem")
    (served / "localhost.pem").write_text((folder / "leaf.pem").read_text() + (folder / "ca.pem").read_text())
    return folder
