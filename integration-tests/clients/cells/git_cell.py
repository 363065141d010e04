"""A cell that serves git repositories: `git http-backend` behind a plain HTTP server (RFC 3875)."""

import http.server
import os
import pathlib
import socketserver
import subprocess
import threading

FOLDER = pathlib.Path(os.environ["CELL_DATA"])


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def chunks(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self.exactly(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        yield from self.exactly(int(self.headers.get("content-length", 0)))

    def exactly(self, left):
        while left:
            data = self.rfile.read(min(left, 1 << 16))
            if not data:
                raise EOFError("the body was cut")
            left -= len(data)
            yield data

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/up":
            self.send_response(200)
            self.send_header("content-length", "0")
            return self.end_headers()
        name = path.split("/")[1]
        if name.endswith(".git") and not (FOLDER / name).exists():
            subprocess.run(["git", "init", "--quiet", "--bare", FOLDER / name], check=True)
            subprocess.run(["git", "-C", FOLDER / name, "config", "http.receivepack", "true"], check=True)
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(FOLDER), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""), "REMOTE_ADDR": self.client_address[0],
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""), "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        if length := self.headers.get("content-length"):
            environment["CONTENT_LENGTH"] = length
        with subprocess.Popen(["git", "http-backend"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as backend:
            feeding = threading.Thread(target=self.feed, args=(backend,))
            feeding.start()
            self.relay(backend.stdout)
            feeding.join()

    do_POST = do_GET

    def feed(self, backend):
        """Gives the body to the backend; one that breaks off is given no end that looks like one."""
        try:
            for data in self.chunks():
                backend.stdin.write(data)
            backend.stdin.close()
        except BrokenPipeError:
            self.close_connection = True
        except (EOFError, OSError, ValueError):
            self.close_connection = True
            backend.kill()

    def relay(self, said):
        status, fields = 200, []
        while line := said.readline().strip():
            name, _, value = line.decode().partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                fields.append((name, value))
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while data := said.read1(1 << 16):
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    host, port = os.environ["CELL_LISTEN"].rsplit(":", 1)
    Server((host, int(port)), Backend).serve_forever()
