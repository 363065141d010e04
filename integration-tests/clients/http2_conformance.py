"""HTTP/2 by raw frames: RFC 9113 sections 3 to 10, RFC 7541, each check named by its section."""

import contextlib
import json
import socket
import struct
import sys

from system import CELLS as FOLDER
from system import Wrong, expect

NEEDS = ["py:hpack"]
CELLS = {"probe": {"command": f"'{sys.executable}' '{FOLDER / 'probe.py'}'"}}

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
(NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION,
 CONNECT_ERROR, CALM) = range(12)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE_S = 5
HOST = "probe.localhost"
CHECKS = []
# What the HTTP/2 library does otherwise, and why that harms nobody. One that no longer holds fails the run.
EXCEPTIONS = {
    "8.1 a pseudo field in trailers": "dropped: it reaches no cell",
}


def check(section, did):
    """Adds a check; its function gets a `Peer` after the handshake."""
    def add(function):
        CHECKS.append((section, did, function))
        return function
    return add


def cases(section, did, values):
    """Adds a check for each value."""
    def add(function):
        for name, value in values.items():
            CHECKS.append((section, f"{did}: {name}", lambda peer, value=value: function(peer, value)))
        return function
    return add


class Gone(Exception):
    """The router closed the connection."""


class Peer:
    """The client's side of one connection, frame by frame."""

    def __init__(self, port, handshake=True, settings=b""):
        import hpack

        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read = b""
        if handshake:
            self.raw(PREFACE)
            self.frame(SETTINGS, 0, 0, settings)
            self.settings = {}
            kind, flags, _, payload = self.until(lambda kind, flags, *_: kind == SETTINGS and not flags & ACK)
            self.settings = {struct.unpack(">HI", payload[at:at + 6])[0]: struct.unpack(">HI", payload[at:at + 6])[1]
                             for at in range(0, len(payload), 6)}
            self.frame(SETTINGS, ACK, 0)
            self.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)

    def raw(self, data):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def frame(self, kind, flags, stream, payload=b"", length=None):
        length = len(payload) if length is None else length
        self.raw(struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def block(self, fields=(), **pseudo):
        """A request's head, compressed. A pseudo field that is `None` is left out."""
        whole = {"method": "GET", "scheme": "http", "path": "/", "authority": HOST, **pseudo}
        return self.encode([(f":{name}", value) for name, value in whole.items() if value is not None] + list(fields))

    def encode(self, fields):
        return self.encoder.encode(fields, huffman=False)

    def headers(self, stream, block, flags=END_STREAM | END_HEADERS):
        self.frame(HEADERS, flags, stream, block)

    def next(self):
        """The next frame: kind, flags, stream, payload."""
        try:
            while len(self.read) < 9 or len(self.read) < 9 + int.from_bytes(self.read[:3], "big"):
                if not (data := self.socket.recv(65536)):
                    raise Gone
                self.read += data
        except ConnectionResetError:
            raise Gone from None
        length = int.from_bytes(self.read[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", self.read[3:9])
        payload, self.read = self.read[9:9 + length], self.read[9 + length:]
        return kind, flags, stream & 0x7FFFFFFF, payload

    def until(self, wanted):
        while not wanted(*(frame := self.next())):
            pass
        return frame

    def answer(self, stream):
        """Status, fields and body of an answer; 0 and the code in place of the body where it was reset."""
        fields, body = None, b""
        while True:
            kind, flags, on, payload = self.next()
            if kind == GOAWAY and payload[4:8] != bytes(4):
                raise Wrong(f"GOAWAY with code {int.from_bytes(payload[4:8], 'big')}: {payload[8:]!r}")
            if kind == HEADERS:
                decoded = dict(self.decoder.decode(payload))
                if on == stream and (fields is None or fields[":status"].startswith("1")):
                    fields = decoded
            if on != stream:
                continue
            if kind == RST_STREAM:
                return 0, fields, int.from_bytes(payload, "big")
            if kind == DATA:
                body += payload
                if payload:
                    self.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                return int(fields[":status"]), fields, body

    def get(self, stream=1, **pseudo):
        self.headers(stream, self.block(**pseudo))
        return self.answer(stream)

    def lives(self, stream=None):
        """The connection still answers pings, and requests where `stream` says on which."""
        self.frame(PING, 0, 0, b"liveness")
        try:
            kind, _, _, payload = self.until(lambda kind, flags, *_: kind == GOAWAY or (kind == PING and flags & ACK))
        except Gone:
            raise Wrong("the connection was closed") from None
        expect(kind == PING, f"GOAWAY {payload[4:]!r}")
        if stream:
            expect(self.get(stream)[0] == 200, "the next request was not answered")

    def connection_error(self, *codes):
        """A GOAWAY with one of these codes, or the connection's end (RFC 9113 section 5.4.1 lets GOAWAY be lost)."""
        try:
            _, _, _, payload = self.until(lambda kind, *_: kind == GOAWAY)
        except Gone:
            return
        said("GOAWAY", payload[4:8], codes)

    def stream_error(self, stream, *codes):
        """A reset of the stream with one of these codes, a refusal by a 4xx answer, or an error of the connection."""
        try:
            while True:
                kind, flags, on, payload = self.next()
                if kind == GOAWAY:
                    return said("GOAWAY", payload[4:8], codes)
                if kind == RST_STREAM and on == stream:
                    return said("RST_STREAM", payload, codes)
                if kind == HEADERS:
                    status = dict(self.decoder.decode(payload)).get(":status")
                    if on == stream:
                        return expect(status.startswith("4"), f"an answer {status}")
        except Gone:
            return


def said(frame, code, codes):
    """One of the codes; or a general one, which can always be used in place of a more specific one (RFC 9113 section 5.4)."""
    code = int.from_bytes(code, "big")
    expect(code in (*codes, PROTOCOL, INTERNAL), f"{frame} with code {code} in place of {codes}")


def run(system):
    import collections

    system.wake("probe")
    way = next(iter(system.ways("probe", via=("router",), asleep=(False,))))
    groups = collections.defaultdict(list)
    for section, did, function in CHECKS:
        groups[section.split(".")[0] if not section.startswith("RFC") else section].append((section, did, function))
    for chapter, checks in groups.items():
        name = f"section {chapter} of RFC 9113" if not chapter.startswith("RFC") else chapter
        excepted = sum(f"{section} {did}" in EXCEPTIONS for section, did, _ in checks)
        told = f"{name}: {len(checks)} checks by raw frames" + (f", {excepted} a known exception" if excepted else "")
        with system.check("HTTP/2", told, way):
            found = {f"{section} {did}": outcome(way, function) for section, did, function in checks}
            bad = [f"{name}: {problem}" for name, problem in found.items() if problem and name not in EXCEPTIONS]
            bad += [f"{name}: no exception any more" for name, problem in found.items() if not problem and name in EXCEPTIONS]
            expect(not bad, f"{len(bad)} of {len(checks)}:\n        " + "\n        ".join(bad))


def outcome(way, function):
    """What is wrong, as text."""
    try:
        if getattr(function, "from_the_beginning", False):
            peer = Peer(way.port, handshake=False)
        else:
            peer = Peer(way.port)
        with contextlib.closing(peer.socket):
            function(peer)
    except Wrong as wrong:
        return str(wrong)
    except Gone:
        return "the connection was closed"
    except TimeoutError:
        return f"nothing came for {PATIENCE_S} s"


# --- section 3: starting ---

@check("3.4", "the preface and empty settings are answered by settings")
def _(peer):
    expect(peer.get()[0] == 200, "no answer")


@check("3.4", "a preface in pieces of one byte")
def _(peer):
    for at in range(len(PREFACE)):
        peer.raw(PREFACE[at:at + 1])
    peer.frame(SETTINGS, 0, 0)
    peer.until(lambda kind, *_: kind == SETTINGS)
    peer.lives(1)
_.from_the_beginning = True


@check("3.4", "a wrong preface ends the connection")
def _(peer):
    peer.raw(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        while peer.socket.recv(65536):
            pass
_.from_the_beginning = True


@check("3.4", "another frame in place of the first settings")
def _(peer):
    peer.raw(PREFACE)
    peer.frame(PING, 0, 0, bytes(8))
    peer.connection_error(PROTOCOL)
_.from_the_beginning = True


# --- section 4: frames ---

@check("4.1", "a frame of an unknown kind is ignored")
def _(peer):
    peer.frame(0x16, 0, 0, b"whatever")
    peer.lives(1)


@check("4.1", "undefined flags are ignored")
def _(peer):
    peer.frame(PING, 0b10110, 0, bytes(8))
    peer.lives(1)


@check("4.1", "the reserved bit is ignored")
def _(peer):
    peer.frame(PING, 0, 0x80000000, bytes(8))
    peer.lives(1)


@check("4.2", "DATA of 2^14 bytes is taken")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(DATA, END_STREAM, 1, bytes(1 << 14))
    status, _, body = peer.answer(1)
    expect(status == 200 and json.loads(body)["bytes"] == 1 << 14, f"{status}")


@check("4.2", "DATA larger than SETTINGS_MAX_FRAME_SIZE")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(DATA, END_STREAM, 1, bytes(peer.settings.get(5, 1 << 14) + 1))
    peer.stream_error(1, FRAME_SIZE)


@check("4.2", "HEADERS larger than SETTINGS_MAX_FRAME_SIZE")
def _(peer):
    peer.headers(1, bytes(peer.settings.get(5, 1 << 14) + 1))
    peer.connection_error(FRAME_SIZE)


@check("4.3", "a block that cannot be decompressed")
def _(peer):
    peer.headers(1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    peer.connection_error(COMPRESSION)


@check("4.3", "a frame of another kind within a block")
def _(peer):
    peer.headers(1, peer.block(), END_STREAM)
    peer.frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 255))
    peer.connection_error(PROTOCOL)


@check("4.3", "HEADERS of another stream within a block")
def _(peer):
    peer.headers(1, peer.block(), END_STREAM)
    peer.headers(3, peer.block())
    peer.connection_error(PROTOCOL)


@check("4.3", "blocks of several requests share one table")
def _(peer):
    for stream in (1, 3, 5):
        expect(peer.get(stream, path="/again")[0] == 200, f"stream {stream}")


# --- section 5: streams ---

IDLE = {"DATA": (DATA, b"x"), "RST_STREAM": (RST_STREAM, bytes(4)), "WINDOW_UPDATE": (WINDOW_UPDATE, b"\0\0\0\x64"),
        "CONTINUATION": (CONTINUATION, b"")}


@cases("5.1", "on an idle stream", IDLE)
def _(peer, frame):
    kind, payload = frame
    peer.frame(kind, END_HEADERS if kind == CONTINUATION else 0, 1, payload)
    peer.connection_error(PROTOCOL, STREAM_CLOSED)


AFTER_END = {"DATA": (DATA, 0), "HEADERS": (HEADERS, END_STREAM | END_HEADERS), "CONTINUATION": (CONTINUATION, END_HEADERS)}


@cases("5.1", "half-closed by the client, then", AFTER_END)
def _(peer, frame):
    kind, flags = frame
    peer.headers(1, peer.block(path="/events"))
    peer.frame(kind, flags, 1, peer.block() if kind == HEADERS else b"x")
    refused(peer, 1, STREAM_CLOSED, PROTOCOL)


def refused(peer, stream, *codes):
    """An error of stream or connection; answers that were on their way may come first."""
    try:
        while True:
            kind, _, on, payload = peer.next()
            if kind == GOAWAY:
                return said("GOAWAY", payload[4:8], codes)
            if kind == RST_STREAM and on == stream:
                return said("RST_STREAM", payload, codes)
    except Gone:
        return


@cases("5.1", "closed by the client's reset, then", AFTER_END)
def _(peer, frame):
    kind, flags = frame
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL))
    peer.frame(kind, flags, 1, peer.block() if kind == HEADERS else b"x")
    refused(peer, 1, STREAM_CLOSED, PROTOCOL)


@cases("5.1", "closed by both ends, then", AFTER_END)
def _(peer, frame):
    kind, flags = frame
    peer.get(1)
    peer.frame(kind, flags, 1, peer.block() if kind == HEADERS else b"x")
    refused(peer, 1, STREAM_CLOSED, PROTOCOL)


@cases("5.1", "on a closed stream is ignored", {"PRIORITY": (PRIORITY, bytes(4) + b"\x10"),
                                               "WINDOW_UPDATE": (WINDOW_UPDATE, b"\0\0\0\x01"),
                                               "RST_STREAM": (RST_STREAM, struct.pack(">I", CANCEL))})
def _(peer, frame):
    peer.get(1)
    peer.frame(frame[0], 0, 1, frame[1])
    peer.lives(3)


@check("5.1.1", "an even stream of the client's")
def _(peer):
    peer.headers(2, peer.block())
    peer.connection_error(PROTOCOL)


@check("5.1.1", "a stream with a number below the last")
def _(peer):
    peer.get(5)
    peer.headers(3, peer.block())
    peer.connection_error(PROTOCOL, STREAM_CLOSED)


@check("5.1.2", "more streams than SETTINGS_MAX_CONCURRENT_STREAMS")
def _(peer):
    most = peer.settings.get(3)
    expect(most is not None and most <= 1000, f"the limit is {most}")
    for number in range(most + 1):
        peer.headers(1 + 2 * number, peer.block(method="PUT"), END_HEADERS)
    refused(peer, 1 + 2 * most, REFUSED, PROTOCOL)


@check("5.1.2", "a hundred streams at once are all answered")
def _(peer):
    streams = range(1, 201, 2)
    for stream in streams:
        peer.headers(stream, peer.block(path=f"/{stream}"))
    waiting = set(streams)
    while waiting:
        kind, flags, on, payload = peer.next()
        expect(kind not in (GOAWAY, RST_STREAM), f"kind {kind} on {on}: {payload!r}")
        if kind == HEADERS:
            expect(dict(peer.decoder.decode(payload))[":status"] == "200", f"stream {on}")
        if flags & END_STREAM and kind in (DATA, HEADERS):
            waiting.discard(on)


@check("5.4.1", "after a GOAWAY with an error the connection closes")
def _(peer):
    peer.frame(PING, 0, 0, bytes(7))
    peer.until(lambda kind, *_: kind == GOAWAY)
    with contextlib.suppress(Gone):
        while True:
            peer.next()


@check("5.5", "an extension's frame within a block")
def _(peer):
    peer.headers(1, peer.block(), END_STREAM)
    peer.frame(0x16, 0, 1, b"x")
    peer.connection_error(PROTOCOL)


# --- section 6: frame definitions ---

@check("6.1", "DATA on stream 0")
def _(peer):
    peer.frame(DATA, END_STREAM, 0, b"x")
    peer.connection_error(PROTOCOL)


@check("6.1", "DATA with padding longer than the frame")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(DATA, END_STREAM | PADDED, 1, b"\x06test")
    peer.connection_error(PROTOCOL)


@check("6.1", "padding is no part of the body")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(DATA, END_STREAM | PADDED, 1, b"\x03body" + bytes(3))
    expect(json.loads(peer.answer(1)[2])["bytes"] == 4, "another length")


@check("6.2", "HEADERS on stream 0")
def _(peer):
    peer.headers(0, peer.block())
    peer.connection_error(PROTOCOL)


@check("6.2", "HEADERS with padding longer than the frame")
def _(peer):
    peer.headers(1, b"\xff" + peer.block(), END_STREAM | END_HEADERS | PADDED)
    peer.connection_error(PROTOCOL)


@check("6.2", "HEADERS with padding and priority")
def _(peer):
    block = b"\x04" + struct.pack(">IB", 0, 15) + peer.block() + bytes(4)
    peer.headers(1, block, END_STREAM | END_HEADERS | PADDED | PRIORITISED)
    expect(peer.answer(1)[0] == 200, "no answer")


@check("6.3", "PRIORITY on stream 0")
def _(peer):
    peer.frame(PRIORITY, 0, 0, struct.pack(">IB", 0, 255))
    peer.connection_error(PROTOCOL)


@check("6.3", "PRIORITY of another length than 5")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(PRIORITY, 0, 1, b"\x80\0\0\x01")
    peer.stream_error(1, FRAME_SIZE)


@check("6.3", "PRIORITY on an idle stream is ignored")
def _(peer):
    peer.frame(PRIORITY, 0, 7, struct.pack(">IB", 0, 255))
    peer.lives(1)


@check("6.4", "RST_STREAM on stream 0")
def _(peer):
    peer.frame(RST_STREAM, 0, 0, bytes(4))
    peer.connection_error(PROTOCOL)


@check("6.4", "RST_STREAM of another length than 4")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(RST_STREAM, 0, 1, bytes(3))
    peer.connection_error(FRAME_SIZE)


@check("6.4", "RST_STREAM ends a stream and nothing else")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL))
    peer.lives(3)


@check("6.5", "SETTINGS with ACK and a payload")
def _(peer):
    peer.frame(SETTINGS, ACK, 0, bytes(1))
    peer.connection_error(FRAME_SIZE)


@check("6.5", "SETTINGS on a stream")
def _(peer):
    peer.frame(SETTINGS, 0, 1, struct.pack(">HI", 3, 100))
    peer.connection_error(PROTOCOL)


@check("6.5", "SETTINGS of a length that is no multiple of 6")
def _(peer):
    peer.frame(SETTINGS, 0, 0, bytes(3))
    peer.connection_error(FRAME_SIZE)


@cases("6.5.2", "a setting out of its range", {
    "ENABLE_PUSH 2": (2, 2, PROTOCOL), "INITIAL_WINDOW_SIZE 2^31": (4, 1 << 31, FLOW_CONTROL),
    "MAX_FRAME_SIZE 2^14 - 1": (5, (1 << 14) - 1, PROTOCOL), "MAX_FRAME_SIZE 2^24": (5, 1 << 24, PROTOCOL),
})
def _(peer, case):
    name, value, code = case
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))
    peer.connection_error(code)


@check("6.5.2", "an unknown setting is ignored")
def _(peer):
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 0xFF, 1))
    peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
    peer.lives(1)


@check("6.5.3", "the last of several values counts")
def _(peer):
    peer.frame(SETTINGS, 0, 0, struct.pack(">HIHI", 4, 100, 4, 1))
    peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
    peer.headers(1, peer.block())
    _, _, _, payload = peer.until(lambda kind, *_: kind == DATA)
    expect(len(payload) == 1, f"{len(payload)} bytes")


@check("6.5.3", "SETTINGS are acknowledged")
def _(peer):
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100))
    peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)


@check("6.6", "PUSH_PROMISE from a client")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + peer.block())
    peer.connection_error(PROTOCOL)


@check("6.7", "PING comes back with its bytes")
def _(peer):
    peer.frame(PING, 0, 0, b"12345678")
    _, flags, _, payload = peer.until(lambda kind, *_: kind == PING)
    expect(flags & ACK and payload == b"12345678", f"{flags} {payload!r}")


@check("6.7", "PING with ACK is not answered")
def _(peer):
    peer.frame(PING, ACK, 0, b"invalid!")
    peer.frame(PING, 0, 0, b"12345678")
    _, _, _, payload = peer.until(lambda kind, *_: kind == PING)
    expect(payload == b"12345678", f"{payload!r}")


@check("6.7", "PING on a stream")
def _(peer):
    peer.frame(PING, 0, 1, bytes(8))
    peer.connection_error(PROTOCOL)


@check("6.7", "PING of another length than 8")
def _(peer):
    peer.frame(PING, 0, 0, bytes(6))
    peer.connection_error(FRAME_SIZE)


@check("6.8", "GOAWAY on a stream")
def _(peer):
    peer.frame(GOAWAY, 0, 1, bytes(8))
    peer.connection_error(PROTOCOL)


@check("6.8", "after the client's GOAWAY a request under way is finished")
def _(peer):
    peer.headers(1, peer.block(path="/events"))
    peer.frame(GOAWAY, 0, 0, bytes(8))
    expect(b"data: 3" in peer.answer(1)[2], "the answer was cut")


@cases("6.9", "WINDOW_UPDATE of 0", {"connection": 0, "stream": 1})
def _(peer, stream):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(WINDOW_UPDATE, 0, stream, bytes(4))
    refused(peer, 1, PROTOCOL)


@check("6.9", "WINDOW_UPDATE of another length than 4")
def _(peer):
    peer.frame(WINDOW_UPDATE, 0, 0, bytes(3))
    peer.connection_error(FRAME_SIZE)


@cases("6.9.1", "a window beyond 2^31 - 1", {"connection": 0, "stream": 1})
def _(peer, stream):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    for _ in range(2):
        peer.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0x7FFFFFFF))
    refused(peer, 1, FLOW_CONTROL)


@check("6.9.1", "no more is sent than the window allows")
def _(peer):
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1000))
    peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
    peer.headers(1, peer.block(path="/bytes/65536"))
    got = 0
    while got < 1000:
        got += len(peer.until(lambda kind, *_: kind == DATA)[3])
    expect(got == 1000, f"{got} bytes")
    peer.lives()
    peer.frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 500))
    while got < 1500:
        got += len(peer.until(lambda kind, *_: kind == DATA)[3])
    expect(got == 1500, f"{got} bytes")


@check("6.9.2", "a change of INITIAL_WINDOW_SIZE opens a window that was shut")
def _(peer):
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    peer.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
    peer.headers(1, peer.block())
    peer.until(lambda kind, *_: kind == HEADERS)
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1))
    expect(len(peer.until(lambda kind, *_: kind == DATA)[3]) == 1, "not a byte")


@check("6.9.2", "a window can be negative")
def _(peer):
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 3))
    peer.headers(1, peer.block())
    peer.until(lambda kind, *_: kind == DATA)
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2))
    peer.frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 2))
    expect(len(peer.until(lambda kind, _, __, payload: kind == DATA and payload)[3]) == 1, "another length")


@check("6.9.2", "INITIAL_WINDOW_SIZE that makes a window too large")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 0x70000000))
    peer.frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x7FFFFFFF))
    peer.connection_error(FLOW_CONTROL)


@check("6.9.1", "DATA beyond the window that the router gave, to a cell that reads nothing")
def _(peer):
    peer.headers(1, peer.block(method="PUT", path="/stall"), END_HEADERS)
    # More than any socket on the way has room for.
    for _ in range(64 << 6):
        peer.frame(DATA, 0, 1, bytes(1 << 14))
    refused(peer, 1, FLOW_CONTROL)


@check("6.10", "a block in several CONTINUATION frames")
def _(peer):
    block = peer.block([("x-a", "b" * 100)])
    peer.headers(1, block[:5], END_STREAM)
    peer.frame(CONTINUATION, 0, 1, block[5:9])
    peer.frame(CONTINUATION, END_HEADERS, 1, block[9:])
    expect(peer.answer(1)[0] == 200, "no answer")


@cases("6.10", "CONTINUATION", {"after END_HEADERS": 1, "on stream 0": 0, "on another stream": 3})
def _(peer, stream):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS if stream == 1 else 0)
    peer.frame(CONTINUATION, END_HEADERS, stream, peer.encode([("x-a", "b")]))
    peer.connection_error(PROTOCOL)


@check("6.10", "CONTINUATION after DATA")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(DATA, 0, 1, b"x")
    peer.frame(CONTINUATION, END_HEADERS, 1, peer.encode([("x-a", "b")]))
    peer.connection_error(PROTOCOL)


# --- section 7: errors ---

@check("7", "RST_STREAM with an unknown code")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(RST_STREAM, 0, 1, b"\0\0\0\xff")
    peer.lives(3)


# --- section 8: HTTP ---

@check("8.1", "trailers end a request")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.frame(DATA, 0, 1, b"body")
    peer.headers(1, peer.encode([("x-trailer", "last")]))
    expect(peer.answer(1)[0] == 200, "no answer")


@check("8.1", "trailers that do not end the stream")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.headers(1, peer.encode([("x-trailer", "last")]), END_HEADERS)
    peer.stream_error(1, PROTOCOL)


@check("8.1", "a pseudo field in trailers")
def _(peer):
    peer.headers(1, peer.block(method="PUT"), END_HEADERS)
    peer.headers(1, peer.encode([(":method", "GET")]))
    peer.stream_error(1, PROTOCOL)


@check("8.1", "HEAD gets a length and no body")
def _(peer):
    status, fields, body = peer.get(method="HEAD")
    expect(status == 200 and int(fields["content-length"]) > 0 and body == b"", f"{status} {len(body)}")


@cases("8.1.1", "content-length that disagrees", {
    "5 for 4": (["5"], [b"test"]), "1 for 4 in two frames": (["1"], [b"te", b"st"]), "3 for none": (["3"], []),
    "two of them": (["4", "5"], [b"test"]), "no number": (["x"], [b"test"]), "a sign": (["+4"], [b"test"]),
})
def _(peer, case):
    lengths, data = case
    peer.headers(1, peer.block([("content-length", length) for length in lengths], method="PUT"),
                 END_HEADERS | (0 if data else END_STREAM))
    for number, piece in enumerate(data):
        peer.frame(DATA, END_STREAM if number == len(data) - 1 else 0, 1, piece)
    peer.stream_error(1, PROTOCOL)


@check("8.1.1", "content-length that agrees")
def _(peer):
    peer.headers(1, peer.block([("content-length", "4")], method="PUT"), END_HEADERS)
    peer.frame(DATA, END_STREAM, 1, b"test")
    expect(json.loads(peer.answer(1)[2])["bytes"] == 4, "another length")


@cases("8.2.1", "a field's name or value that is none", {
    "upper case": ("X-Test", "ok"), "a space in the name": ("x test", "ok"), "a colon in the name": ("x:test", "ok"),
    "an empty name": ("", "ok"), "NUL": ("x-test", "a\0b"), "CR": ("x-test", "a\rb"), "LF": ("x-test", "a\nb"),
})
def _(peer, field):
    peer.headers(1, peer.block([field]))
    peer.stream_error(1, PROTOCOL)


@cases("8.2.2", "a field of the connection's", {
    "connection": ("connection", "keep-alive"), "proxy-connection": ("proxy-connection", "keep-alive"),
    "keep-alive": ("keep-alive", "timeout=5"), "transfer-encoding": ("transfer-encoding", "chunked"),
    "upgrade": ("upgrade", "h2c"), "te": ("te", "trailers, deflate"),
})
def _(peer, field):
    peer.headers(1, peer.block([field]))
    peer.stream_error(1, PROTOCOL)


@check("8.2.2", "te: trailers")
def _(peer):
    peer.headers(1, peer.block([("te", "trailers")]))
    expect(peer.answer(1)[0] == 200, "no answer")


@check("8.2.3", "pieces of a cookie reach the cell as one")
def _(peer):
    peer.headers(1, peer.block([("cookie", "a=b"), ("cookie", "c=d")]))
    told = json.loads(peer.answer(1)[2])["headers"]
    expect({name.lower(): value for name, value in told.items()}.get("cookie") == "a=b; c=d", f"{told}")


@cases("8.3", "a pseudo field", {
    "that is unknown": [(":test", "ok")], "of an answer": [(":status", "200")], "twice, :method": [(":method", "GET")],
    "twice, :path": [(":path", "/")], "twice, :scheme": [(":scheme", "http")], "twice, :authority": [(":authority", HOST)],
})
def _(peer, fields):
    peer.headers(1, peer.block(fields))
    peer.stream_error(1, PROTOCOL)


@check("8.3", "a pseudo field after an ordinary one")
def _(peer):
    peer.headers(1, peer.encode([(":method", "GET"), (":scheme", "http"), ("x-test", "ok"), (":path", "/"), (":authority", HOST)]))
    peer.stream_error(1, PROTOCOL)


@cases("8.3.1", "a request without", {"method": "method", "scheme": "scheme", "path": "path"})
def _(peer, name):
    peer.headers(1, peer.block(**{name: None}))
    peer.stream_error(1, PROTOCOL)


@cases("8.3.1", "a path that is none", {"empty": "", "relative": "a", "asterisk with GET": "*", "a space": "/a b", "control": "/a\x01"})
def _(peer, path):
    peer.headers(1, peer.block(path=path))
    peer.stream_error(1, PROTOCOL)


@check("8.3.1", ":authority and host that differ")
def _(peer):
    peer.headers(1, peer.block([("host", "alice.localhost")]))
    peer.stream_error(1, PROTOCOL)


@check("8.3.1", "host in place of :authority")
def _(peer):
    peer.headers(1, peer.block([("host", HOST)], authority=None))
    expect(peer.answer(1)[0] == 200, "no answer")


@check("8.3.1", "userinfo in :authority")
def _(peer):
    peer.headers(1, peer.block(authority=f"user@{HOST}"))
    peer.stream_error(1, PROTOCOL)


@check("8.5", "CONNECT is refused")
def _(peer):
    peer.headers(1, peer.block(method="CONNECT", scheme=None, path=None, authority=f"{HOST}:80"), END_HEADERS)
    status, _, _ = peer.answer(1)
    expect(status == 0 or 400 <= status < 600, f"{status}")


@check("8.1", "an early answer to an upload comes whole")
def _(peer):
    peer.headers(1, peer.block(method="PUT", path="/early/413"), END_HEADERS)
    peer.frame(DATA, 0, 1, bytes(1000))
    status, _, body = peer.answer(1)
    expect(status == 413 and body == b"early " * 1000, f"{status}, {len(body)} bytes")
    peer.lives(3)


# --- section 10: security ---

def survives_or_calms(peer, port):
    """The client is told to calm down, or everything is worked off; another one is served in either case."""
    try:
        peer.lives()
    except (Wrong, Gone):
        pass
    other = Peer(port)
    with contextlib.closing(other.socket):
        other.lives(1)


@check("10.5", "rapid resets: 2,000 requests taken back at once")
def _(peer):
    block = peer.block()
    for number in range(2000):
        peer.headers(1 + 2 * number, block)
        peer.frame(RST_STREAM, 0, 1 + 2 * number, struct.pack(">I", CANCEL))
    survives_or_calms(peer, peer.port)


@check("10.5", "a block without end in CONTINUATION frames")
def _(peer):
    peer.headers(1, peer.block(), END_STREAM)
    filler = peer.encode([("x-a", "b" * 8000)])
    for _ in range(2000):
        peer.frame(CONTINUATION, 0, 1, filler)
    peer.connection_error(CALM, PROTOCOL, COMPRESSION, INTERNAL)


@check("10.5", "empty CONTINUATION frames without end")
def _(peer):
    peer.headers(1, peer.block(), END_STREAM)
    for _ in range(20000):
        peer.frame(CONTINUATION, 0, 1)
    peer.connection_error(CALM, PROTOCOL, COMPRESSION, INTERNAL)


@cases("10.5", "a flood of 10,000", {"SETTINGS": (SETTINGS, b""), "PING": (PING, bytes(8)), "PRIORITY": (PRIORITY, bytes(5))})
def _(peer, frame):
    peer.raw(b"".join(struct.pack(">I", len(frame[1]))[1:] + struct.pack(">BBI", frame[0], 0, int(frame[0] == PRIORITY)) + frame[1]
                      for _ in range(1)) * 10000)
    survives_or_calms(peer, peer.port)


@check("10.5.1", "a field of 1 MiB is refused with 431, or by an error of the stream")
def _(peer):
    block = peer.block([("x-large", "a" * (1 << 20))])
    peer.headers(1, block[:16000], END_STREAM)
    rest = [block[at:at + 16000] for at in range(16000, len(block), 16000)]
    for number, piece in enumerate(rest):
        peer.frame(CONTINUATION, END_HEADERS if number == len(rest) - 1 else 0, 1, piece)
    peer.stream_error(1, PROTOCOL, CALM, REFUSED, COMPRESSION, INTERNAL)


# --- RFC 7541 ---

RFC7541 = {
    "an index of 0 (6.1)": b"\x80", "an index beyond the table (2.3.3)": b"\xff\x80\x01",
    "a literal whose name is beyond the table (2.3.3)": b"\x7f\x80\x01\x01a",
    "a table size beyond the settings (6.3)": b"\x3f\xe1\xff\xff\x7f",
    "Huffman padding of more than 7 bits (5.2)": b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff",
    "Huffman padding that is not ones (5.2)": b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90",
    "EOS within a Huffman string (5.2)": b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\xff\xff\xff\xff",
    "a string longer than the block (5.2)": b"\x00\x7f\x80\x01a", "an integer without end (5.1)": b"\xff" + b"\xff" * 12,
}


@cases("RFC 7541", "an error of the connection", RFC7541)
def _(peer, bad):
    peer.headers(1, peer.block() + bad)
    peer.connection_error(COMPRESSION, PROTOCOL)


@check("RFC 7541", "a table size update after the first field (4.2)")
def _(peer):
    peer.headers(1, peer.block() + b"\x20")
    peer.connection_error(COMPRESSION)


@check("RFC 7541", "a table size update at the beginning (4.2), and fields that are never indexed (6.2.3)")
def _(peer):
    peer.headers(1, b"\x20" + peer.block() + b"\x10\x03x-a\x01b")
    expect(peer.answer(1)[0] == 200, "no answer")


@check("RFC 7541", "Huffman strings (5.2)")
def _(peer):
    peer.headers(1, peer.encoder.encode([(":method", "GET"), (":scheme", "http"), (":path", "/a/long/path"), (":authority", HOST)]))
    expect(json.loads(peer.answer(1)[2])["path"] == "/a/long/path", "another path")
