"""A cell that echoes WebSocket messages, with compression; it takes the subprotocol `two` where one offers it."""

import asyncio
import os

from websockets.asyncio.server import serve

MAX_MESSAGE_BYTES = 64 << 20


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    host, port = os.environ["CELL_LISTEN"].rsplit(":", 1)
    choose = lambda _, offered: "two" if "two" in offered else None
    up = lambda socket, request: socket.respond(200, "ok\n") if request.path == "/up" else None
    wanted = {"max_size": MAX_MESSAGE_BYTES, "ping_interval": None, "select_subprotocol": choose, "process_request": up}
    async with serve(echo, host, int(port), **wanted):
        await asyncio.Future()


asyncio.run(main())
