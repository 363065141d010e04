"""curl: uploads of every shape, HTTP/2 by prior knowledge, `Expect`, ranges, slow and broken-off transfers."""

import hashlib
import json
import sys

from system import CELLS as FOLDER
from system import expect, sha256, until

NEEDS = ["curl", "openssl"]
CELLS = {"probe": {"command": f"'{sys.executable}' '{FOLDER / 'probe.py'}'"}}
MIB = 1 << 20


def curl(check, *words, **options):
    return check.sh("curl", "--silent", "--show-error", "--max-time", "140", *words, **options)


def run(system):
    uploads(system)
    shapes(system)
    expectations(system)
    downloads(system)
    secure(system)


def uploads(system):
    size = 128 if system.fast else 1024
    file, digest = system.payload("large", size * MIB)
    for way in system.ways("bob"):
        with system.check("curl", f"-T of {size} MiB", way) as check:
            answer = json.loads(curl(check, "-T", file, f"{way.url}/files/large.bin"))
            check.same(answer["sha256"], digest)
    fetched = system.work / "fetched.bin"
    for way in system.ways("bob"):
        with system.check("curl", f"GET of {size} MiB", way) as check:
            curl(check, "-o", fetched, f"{way.url}/files/large.bin")
            check.same(sha256(fetched), digest)
    file.unlink()


def shapes(system):
    file, digest = system.payload("medium", 48 * MIB)
    for way in system.ways("probe"):
        with system.check("curl", "-T - (chunked), 48 MiB", way) as check, open(file, "rb") as body:
            check.same(json.loads(curl(check, "-T", "-", f"{way.url}/chunked", stdin=body))["sha256"], digest)
        with system.check("curl", "-F, a file of 48 MiB and a field", way) as check:
            answer = json.loads(curl(check, "-F", "field=value", "-F", f"file=@{file}", f"{way.url}/form"))
            check.same(answer["parts"]["file"], digest)
            expect(answer["parts"]["field"] == hashlib.sha256(b"value").hexdigest(), "the field differs")
        with system.check("curl", "-d, a small form", way) as check:
            answer = json.loads(curl(check, "-d", "a=b", f"{way.url}/small"))
            check.same(answer["sha256"], hashlib.sha256(b"a=b").hexdigest())
        with system.check("curl", "--http2-prior-knowledge, -T of 48 MiB", way) as check:
            answer = json.loads(curl(check, "--http2-prior-knowledge", "-T", file, f"{way.url}/h2"))
            check.same(answer["sha256"], digest)
        with system.check("curl", "--http2-prior-knowledge, -T -, unknown length", way) as check, open(file, "rb") as body:
            answer = json.loads(curl(check, "--http2-prior-knowledge", "-T", "-", f"{way.url}/h2", stdin=body))
            check.same(answer["sha256"], digest)
        with system.check("curl", "--http2 (Upgrade: h2c), -T of 48 MiB", way) as check:
            check.same(json.loads(curl(check, "--http2", "-T", file, f"{way.url}/h2c"))["sha256"], digest)
        with system.check("curl", "--http1.0, -T of 48 MiB", way) as check:
            check.same(json.loads(curl(check, "--http1.0", "-T", file, f"{way.url}/old"))["sha256"], digest)
    small, small_digest = system.payload("small", 3 * MIB)
    for way in system.ways("probe", asleep=(False,)):
        with system.check("curl", "-T with --limit-rate 1M, 3 MiB", way) as check:
            answer = json.loads(curl(check, "--limit-rate", "1M", "-T", small, f"{way.url}/slow"))
            check.same(answer["sha256"], small_digest)
        with system.check("curl", "-T broken off in the middle reaches the cell as cut", way) as check:
            curl(check, "--limit-rate", "200k", "--max-time", "1", "-T", file, f"{way.url}/broken", good=(28,))
            last = lambda: json.loads(curl(check, f"http://probe.localhost:{system.port['router']}/last"))
            ended = until(lambda: (found := last())["ended"] != "running" and found, "the cell to see the end", 20)
            expect(ended["ended"] == "cut", f"the cell saw the upload end as {ended}")


def expectations(system):
    file, digest = system.payload("medium", 48 * MIB)
    words = ["-H", "Expect: 100-continue", "--expect100-timeout", "60", "-T", file, "-w", " %{http_code} %{size_upload}"]
    for way in system.ways("probe"):
        with system.check("curl", "Expect: 100-continue, the cell's 100 asks for 48 MiB", way) as check:
            answer, status, _ = curl(check, *words, f"{way.url}/wanted").rsplit(" ", 2)
            check.same(json.loads(answer)["sha256"], digest)
    # Straight to the router: the emulated edge closes on a body that it has not read, and the answer may go with it.
    for way in system.ways("probe", via=("router",)):
        for status in ("413", "417"):
            with system.check("curl", f"Expect: 100-continue, the cell answers {status} at once", way) as check:
                answer, code, sent = curl(check, *words, f"{way.url}/early/{status}").rsplit(" ", 2)
                # After 417 curl sends its body anew, without Expect: that it then gets 417 again is right.
                expect(code == status and answer == ("early " * 1000), f"{code}, {len(answer)} bytes of answer")
                expect(status == "417" or sent == "0", f"{sent} bytes were sent for nothing")
        with system.check("curl", "-T of 48 MiB, the cell answers 413 before it reads", way) as check:
            plain = ["-H", "Expect:", "-T", file, "-w", " %{http_code}"]
            answer, code = curl(check, *plain, f"{way.url}/early/413").rsplit(" ", 1)
            expect(code == "413" and answer == "early " * 1000, f"{code}, {len(answer)} bytes of answer")


def downloads(system):
    file, digest = system.payload("medium", 48 * MIB)
    fetched = system.work / "fetched.bin"
    for way in system.ways("carol"):
        with system.check("curl", "--http2-prior-knowledge, GET of 48 MiB", way) as check:
            curl(check, "-T", file, f"{way.url}/files/medium.bin")
            curl(check, "--http2-prior-knowledge", "-o", fetched, f"{way.url}/files/medium.bin")
            check.same(sha256(fetched), digest)
        with system.check("curl", "-C -, a download resumed by a range", way) as check:
            curl(check, "--range", "0-19999999", "-o", fetched, f"{way.url}/files/medium.bin")
            curl(check, "-C", "-", "-o", fetched, f"{way.url}/files/medium.bin")
            check.same(sha256(fetched), digest)
        with system.check("curl", "-I says the length, and the connection lives on", way) as check:
            head = curl(check, "-I", f"{way.url}/files/medium.bin", "--next", "--silent", "-o", fetched,
                        f"{way.url}/files/medium.bin")
            expect(f"content-length: {48 * MIB}" in head.lower(), head)
            check.same(sha256(fetched), digest)
    for way in system.ways("carol", asleep=(False,)):
        with system.check("curl", "GET with --limit-rate 16M", way) as check:
            curl(check, "--limit-rate", "16M", "-o", fetched, f"{way.url}/files/medium.bin")
            check.same(sha256(fetched), digest)


def secure(system):
    file, digest = system.payload("medium", 48 * MIB)
    for way in system.ways("probe", via=("router",)):
        url = f"https://probe.localhost:{system.port['tls']}/tls"
        for words in (["--http2"], ["--http1.1"], ["--tlsv1.2", "--tls-max", "1.2"]):
            with system.check("curl", f"https, {' '.join(words)}, -T of 48 MiB", way) as check:
                answer = json.loads(curl(check, "--cacert", system.ca / "ca.pem", *words, "-T", file, url))
                check.same(answer["sha256"], digest)
                expect(answer["headers"].get("x-forwarded-proto") == "https", "the cell was not told of TLS")
