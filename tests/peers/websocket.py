"""WebSocket by a library that nobody here wrote. `server` prints its port and echoes; `client URL` sends texts and bytes
of many sizes through whatever is in between, pings, and closes with a code that must arrive. `stay URL...` talks at each
in turn until it is closed. Server and client print the codes that they were closed with."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

SIZES = [0, 1, 125, 126, 65_535, 65_536, 1_000_000]


async def echo(websocket):
    async for message in websocket:
        if message == "close with 4001":
            await websocket.close(4001, "as asked")
            return
        await websocket.send(message)
    print("closed with", websocket.close_code, flush=True)


async def run_server():
    async with serve(echo, "127.0.0.1", 0, max_size=2**22, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


async def run_client(url):
    async with connect(url, max_size=2**22, compression=None) as websocket:
        for size in SIZES:
            for message in ("t" * size, b"\x00\xff" * (size // 2)):
                await websocket.send(message)
                assert await websocket.recv() == message, size
        await (await websocket.ping(b"are you there"))
        await websocket.send("close with 4001")
        try:
            await websocket.recv()
            raise AssertionError("the connection stayed open")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4001 and closed.rcvd.reason == "as asked", closed
    print(sum(2 * size for size in SIZES))


async def run_stay(urls):
    for url in urls:
        async with connect(url) as websocket:
            await websocket.send("hello")
            assert await websocket.recv() == "hello"
            print("open", flush=True)
            try:
                await websocket.recv()
            except ConnectionClosed as closed:
                print("closed with", closed.rcvd.code, flush=True)


if sys.argv[1] == "server":
    asyncio.run(run_server())
elif sys.argv[1] == "stay":
    asyncio.run(run_stay(sys.argv[2:]))
else:
    asyncio.run(asyncio.wait_for(run_client(sys.argv[2]), 30))
