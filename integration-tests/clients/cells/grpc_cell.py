"""A cell that speaks gRPC: bytes in, bytes out, so that no code has to be generated."""

import concurrent.futures
import hashlib
import os
import threading
import time

import grpc

CANCELLED = threading.Event()


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        calls = {
            "/echo/One": grpc.unary_unary_rpc_method_handler(self.one),
            "/echo/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/echo/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/echo/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/echo/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "/echo/Slow": grpc.unary_stream_rpc_method_handler(self.slow),
            "/echo/Cancelled": grpc.unary_unary_rpc_method_handler(lambda *_: b"yes" if CANCELLED.wait(20) else b"no"),
        }
        return calls.get(details.method)

    def one(self, request, context):
        told = dict(context.invocation_metadata())
        context.send_initial_metadata([("first", told.get("asks", "nothing"))])
        context.set_trailing_metadata([("last", "word"), ("last-bin", b"\0\xff")])
        return request

    def down(self, request, _):
        size, count = (int(number) for number in request.split())
        for number in range(count):
            yield number.to_bytes(4, "big") + bytes(size - 4)

    def up(self, requests, _):
        whole = hashlib.sha256()
        for request in requests:
            whole.update(request)
        return whole.hexdigest().encode()

    def both(self, requests, _):
        yield from requests

    def fail(self, _, context):
        context.set_trailing_metadata([("why", "because")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü")

    def slow(self, _, context):
        CANCELLED.clear()
        context.add_callback(CANCELLED.set)
        while context.is_active():
            yield b"tick"
            time.sleep(0.02)


if __name__ == "__main__":
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=[Echo()], options=unlimited)
    server.add_insecure_port(os.environ["CELL_LISTEN"])
    server.start()
    server.wait_for_termination()
