"""WebSockets: the Autobahn cases, a real client, and a tunnel that must not change a byte."""

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import sys

from system import CELLS as FOLDER
from system import expect

NEEDS = ["py:websockets", "py:kosoku"]
CELLS = {
    "ws": {"command": f"'{sys.executable}' '{FOLDER / 'ws_echo.py'}' 2>/dev/null", "entry": {"paths": ["/ws"]}},
    "probe": {"command": f"'{sys.executable}' '{FOLDER / 'probe.py'}'"},
}
# Of the groups that measure speed with a thousand messages a case, a few.
CASES = [f"{group}.*" for group in ("1", "2", "3", "4", "5", "6", "7", "10")] + [
    "9.1.*", "9.2.*", "9.7.1", "9.8.1", "12.1.1", "12.1.10", "12.2.5", "12.3.5", "12.4.5", "12.5.5", "13.1.3", "13.2.3",
    "13.3.3", "13.4.3", "13.5.3", "13.6.3", "13.7.3",
]
FAST_CASES = [case for case in CASES if not case.startswith(("9.", "12.", "13."))] + ["9.1.6", "9.2.6", "12.1.1", "13.1.3"]


def run(system):
    conformance(system)
    conversation(system)
    transparency(system)


def conformance(system):
    cases = FAST_CASES if system.fast else CASES
    system.wake("ws")
    expected = outcomes(f"ws://127.0.0.1:{system.described['cells']['ws']['port']}/ws", cases)
    for way in system.ways("ws"):
        with system.check("WebSocket", f"Autobahn's {len(expected)} cases end as without a router", way) as check:
            found = outcomes(f"ws://localhost:{way.port}/ws", cases)
            differ = [f"{case}: {found.get(case)} for {outcome}" for case, outcome in expected.items() if found.get(case) != outcome]
            expect(not differ, "; ".join(differ[:5]))


def outcomes(url, cases):
    """How each case ended, by its name. Whether a server fails at once or first answers what came whole before is a matter
    of time, and both are right."""
    import kosoku

    async def every():
        try:
            return await asyncio.wait_for(kosoku.run_fuzzingclient(url, cases, concurrency=4), 140)
        except kosoku.FailureError as failed:
            return failed.results

    return {case.case_id: f"{case.behavior}, {case.behavior_close}".replace("NON_STRICT", "OK") for case in asyncio.run(every())}


def conversation(system):
    from websockets.asyncio.client import connect

    async def talk(way, **options):
        wanted = {"max_size": None, "ping_interval": None, "open_timeout": 60, "host": "127.0.0.1", "port": way.port, **options}
        async with connect(f"ws://localhost:{way.port}/ws", **wanted) as socket:
            for size in (0, 1, 125, 126, 65535, 65536, 16 << 20):
                sent = os.urandom(size)
                await socket.send(sent)
                expect(await asyncio.wait_for(socket.recv(), 60) == sent, f"a message of {size} bytes came back changed")
            # A text cut inside its characters, with a ping between the pieces.
            pieces = "grüße, 🌍"
            await socket.send(iter(pieces))
            await asyncio.wait_for(await socket.ping(), 30)
            expect(await socket.recv() == pieces, "a fragmented text came back changed")
            await socket.close(4001, "enough")
            return socket.subprotocol, socket.close_code

    for way in system.ways("ws"):
        for name, compression in (("permessage-deflate", "deflate"), ("no extension", None)):
            with system.check("WebSocket", f"messages of 0 B to 16 MiB, fragments, pings, {name}", way):
                subprotocol, code = asyncio.run(talk(way, compression=compression, subprotocols=["one", "two"]))
                expect(subprotocol == "two", f"the subprotocol is {subprotocol}")
                expect(code == 4001, f"the close code is {code}")


@contextlib.contextmanager
def tunnel(way, kind):
    """A connection that was switched to a protocol of nobody's."""
    with socket.create_connection(("127.0.0.1", way.port), 60) as connection:
        head = f"GET /tunnel/{kind} HTTP/1.1\r\nhost: {way.host}\r\nconnection: Upgrade\r\nupgrade: raw\r\n\r\n"
        connection.sendall(head.encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += (data := connection.recv(1)) or b"\r\n\r\n"
        expect(got.startswith(b"HTTP/1.1 101"), f"no switch: {got[:200]}")
        yield connection


def transparency(system):
    for way in system.ways("probe"):
        with system.check("WebSocket", "4 MiB of random bytes in random pieces are echoed as they are", way) as check:
            check.same(*asyncio.run(echoed(way)))
        with system.check("WebSocket", "one side ends its half, the other still answers", way) as check, tunnel(way, "hash") as connection:
            sent = os.urandom(1 << 20)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            check.same(rest(connection).decode(), hashlib.sha256(sent).hexdigest())
        with system.check("WebSocket", "a cell that breaks off ends the client's side", way), tunnel(way, "abort") as connection:
            connection.sendall(b"x")
            with contextlib.suppress(ConnectionResetError):
                expect(rest(connection) == b"", "something came after the end")


def rest(connection):
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


async def echoed(way):
    """SHA-256 of what was sent and of what came back."""
    with tunnel(way, "echo") as connection:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
        size, sent, got = 4 << 20, hashlib.sha256(), hashlib.sha256()

        async def send():
            left, pieces = size, random.Random(7)
            while left:
                piece = os.urandom(min(left, pieces.choice([1, 2, 3, 125, 1400, 16384, 65537])))
                sent.update(piece)
                writer.write(piece)
                await writer.drain()
                left -= len(piece)

        async def receive():
            left = size
            while left:
                data = await reader.read(65536)
                expect(data, f"the tunnel ended {left} bytes too early")
                got.update(data)
                left -= len(data)

        await asyncio.wait_for(asyncio.gather(send(), receive()), 120)
        writer.close()
        return sent.hexdigest(), got.hexdigest()
