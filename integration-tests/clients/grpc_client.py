"""gRPC over HTTP/2 to a cell that speaks it: all four kinds of call, metadata, statuses, deadlines, cancellation.

Straight to a router only: the emulated edge speaks HTTP/1.1 to machines, as Fly's does unless it is told otherwise.
"""

import hashlib
import os
import queue
import sys

from system import CELLS as FOLDER
from system import expect

NEEDS = ["py:grpc"]
CELLS = {"grpc": {"command": f"'{sys.executable}' '{FOLDER / 'grpc_cell.py'}'", "entry": {"protocol": "http2"}}}
MIB = 1 << 20
PATIENCE_S = 60


def run(system):
    calls = {
        "unary, with metadata first and last": unary, "unary, a message of 16 MiB": large,
        "server streaming, 2,000 messages": down, "client streaming, 32 MiB": up,
        "streaming both ways, each message answered before the next": both, "a status with its details": status,
        "a deadline ends a stream": deadline, "cancelling reaches the cell": cancel, "40 calls at once": many,
    }
    for way in system.ways("grpc", via=("router",)):
        for name, call in calls.items():
            with system.check("gRPC", name, way) as check, channel(system, way.port) as to:
                call(to, check)
        with system.check("gRPC", "over TLS, streaming both ways", way) as check, channel(system, system.port["tls"], tls=True) as to:
            both(to, check)


def channel(system, port, tls=False):
    import grpc

    options = [("grpc.default_authority", "grpc.localhost"), ("grpc.enable_retries", 0),
               ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if not tls:
        return grpc.insecure_channel(f"ipv4:127.0.0.1:{port}", options)
    trusted = grpc.ssl_channel_credentials((system.ca / "ca.pem").read_bytes())
    return grpc.secure_channel(f"ipv4:127.0.0.1:{port}", trusted, [*options, ("grpc.ssl_target_name_override", "grpc.localhost")])


def unary(to, _):
    answer, call = to.unary_unary("/echo/One").with_call(b"message", PATIENCE_S, metadata=[("asks", "something")])
    expect(answer == b"message", f"{answer!r}")
    expect(("first", "something") in call.initial_metadata(), f"{call.initial_metadata()}")
    last = dict(call.trailing_metadata())
    expect(last.get("last") == "word" and last.get("last-bin") == b"\0\xff", f"{last}")


def large(to, check):
    message = os.urandom(16 * MIB)
    answer = to.unary_unary("/echo/One")(message, PATIENCE_S)
    check.same(hashlib.sha256(answer).hexdigest(), hashlib.sha256(message).hexdigest())


def down(to, _):
    numbers = [int.from_bytes(message[:4], "big") for message in to.unary_stream("/echo/Down")(b"10000 2000", PATIENCE_S)]
    expect(numbers == list(range(2000)), f"{len(numbers)} messages")


def up(to, check):
    messages = [os.urandom(65536) for _ in range(512)]
    answer = to.stream_unary("/echo/Up")(iter(messages), PATIENCE_S)
    check.same(answer.decode(), hashlib.sha256(b"".join(messages)).hexdigest())


def both(to, _):
    waiting = queue.Queue()
    answers = to.stream_stream("/echo/Both")(iter(waiting.get, None), PATIENCE_S)
    for number in range(200):
        message = bytes([number]) * (1 + number * 97)
        waiting.put(message)
        expect(next(answers) == message, f"message {number} came back changed")
    waiting.put(None)
    expect(next(answers, None) is None, "something came after the end")


def status(to, _):
    error = failure(lambda: to.unary_unary("/echo/Fail")(b"", PATIENCE_S))
    expect(error.code().name == "FAILED_PRECONDITION" and error.details() == "not now: ü", f"{error}")
    expect(("why", "because") in error.trailing_metadata(), f"{error.trailing_metadata()}")
    error = failure(lambda: to.unary_unary("/echo/Nothing")(b"", PATIENCE_S))
    expect(error.code().name == "UNIMPLEMENTED", f"{error}")


def deadline(to, _):
    error = failure(lambda: list(to.unary_stream("/echo/Slow")(b"", 5)))
    expect(error.code().name == "DEADLINE_EXCEEDED", f"{error}")


def cancel(to, _):
    ticks = to.unary_stream("/echo/Slow")(b"", PATIENCE_S)
    next(ticks)
    ticks.cancel()
    expect(to.unary_unary("/echo/Cancelled")(b"", PATIENCE_S) == b"yes", "the cell goes on")


def many(to, _):
    calls = [to.unary_unary("/echo/One").future(bytes([number]) * 1000, PATIENCE_S) for number in range(40)]
    for number, call in enumerate(calls):
        expect(call.result() == bytes([number]) * 1000, f"call {number}")


def failure(call):
    """What a call failed with."""
    import grpc

    try:
        call()
    except grpc.RpcError as error:
        return error
    expect(False, "the call succeeded")
