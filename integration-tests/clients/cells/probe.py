"""A cell that tells what it got: a plain HTTP/1.1 server, one thread for each connection.

PUT or POST anywhere: SHA-256 and length of the body, and of the file in a multipart one, as JSON.
/early/STATUS answers that before it reads a byte of the body; /stall reads nothing and says nothing;
/last says how the last upload ended; /bytes/N sends N bytes; /events sends numbered events and ends; /up is for whoever asks whether it is there.
"""

import hashlib
import http.server
import json
import os
import re
import socket
import socketserver
import struct
import time

LAST = {"ended": "none", "bytes": 0}


class Probe(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def log_message(self, *_):
        pass

    def handle_expect_100(self):
        # Whether the body is wanted is decided by the path.
        if not self.path.startswith("/early/"):
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        return True

    def answer(self, status, body, kind="application/json", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def chunks(self):
        """The body; raises if it ends before its end."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return
                yield from self.exactly(size)
                self.rfile.readline()
        yield from self.exactly(int(self.headers.get("content-length", 0)))

    def exactly(self, left):
        while left:
            data = self.rfile.read(min(left, 65536))
            if not data:
                raise EOFError("the body was cut")
            left -= len(data)
            yield data

    def do_PUT(self):
        if self.path == "/stall":
            return time.sleep(20)
        if self.path.startswith("/early/"):
            self.close_connection = True
            return self.answer(int(self.path.rsplit("/", 1)[1]), b"early " * 1000, "text/plain", connection="close")
        whole, bytes_in, kept = hashlib.sha256(), 0, bytearray()
        multipart = self.headers.get("content-type", "").startswith("multipart/form-data")
        LAST.update(ended="running", bytes=0)
        try:
            for data in self.chunks():
                whole.update(data)
                bytes_in += len(data)
                LAST["bytes"] = bytes_in
                if multipart:
                    kept += data
        except (EOFError, OSError, ValueError):
            LAST.update(ended="cut", bytes=bytes_in)
            self.close_connection = True
            return
        LAST.update(ended="whole", bytes=bytes_in)
        told = {"sha256": whole.hexdigest(), "bytes": bytes_in, "headers": dict(self.headers.items())}
        if multipart:
            told["parts"] = parts(self.headers["content-type"], bytes(kept))
        self.answer(200, told)

    do_POST = do_PUT

    def do_GET(self):
        if self.path.startswith("/tunnel/"):
            return self.tunnel(self.path.removeprefix("/tunnel/"))
        if self.path == "/last":
            return self.answer(200, LAST)
        if self.path.startswith("/bytes/"):
            return self.answer(200, os.urandom(1 << 16) * (int(self.path.rsplit("/", 1)[1]) >> 16), "application/octet-stream")
        if self.path == "/events":
            return self.events()
        self.answer(200, {"path": self.path, "headers": dict(self.headers.items())})

    do_HEAD = do_GET

    def tunnel(self, way):
        """Switches, and then echoes bytes, tells the SHA-256 of all until their end, or breaks off."""
        self.close_connection = True
        self.send_response_only(101)
        self.send_header("upgrade", self.headers.get("upgrade"))
        self.send_header("connection", "upgrade")
        self.end_headers()
        self.wfile.flush()
        seen = hashlib.sha256()
        while data := self.rfile.read1(65536):
            seen.update(data)
            if way == "echo":
                self.wfile.write(data)
                self.wfile.flush()
            if way == "abort":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
        if way == "hash":
            self.wfile.write(seen.hexdigest().encode())
            self.wfile.flush()

    def events(self):
        """Three events, numbered on from the last that the client had, and then the end: a client comes back for more."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        first = int(self.headers.get("last-event-id", 0)) + 1
        for number in range(first, first + 3):
            self.wfile.write(f"id: {number}\nretry: 50\ndata: {number}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.02)


def parts(kind, body):
    """SHA-256 of each part of a multipart body, by name."""
    boundary = b"--" + kind.split("boundary=")[1].strip('"').encode()
    found = {}
    for part in (b"\r\n" + body).split(b"\r\n" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'[ ;]name="([^"]*)"', head)[1].decode()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    host, port = os.environ["CELL_LISTEN"].rsplit(":", 1)
    Server((host, int(port)), Probe).serve_forever()
