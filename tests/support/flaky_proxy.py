"""A proxy between a limiter and its store that loses, delays and truncates replies as a test plans."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from itertools import chain, repeat
from random import Random
from threading import Thread

MAX_DELAY_S = 0.3
"""The longest delay of the fault `delay`, in seconds."""

LATE_S = 0.45
"""The delay of the fault `late`, in seconds."""

DRIP_S = 0.02
"""The time between two bytes of the fault `drip`, in seconds."""

_RESET_ON_CLOSE = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)

Fault = Callable[[asyncio.StreamWriter, bytes, Random], Awaitable[None]]
"""Handles a reply of the server."""


async def _pass(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    writer.write(reply)


async def _drop(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    writer.close()


async def _half(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    writer.write(reply[: len(reply) // 2])
    writer.close()


async def _stall(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    await asyncio.sleep(3600)


async def _reset(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    writer.transport.get_extra_info("socket").setsockopt(*_RESET_ON_CLOSE)
    writer.transport.abort()


async def _split(writer: asyncio.StreamWriter, reply: bytes, random: Random, pause: float = 0) -> None:
    for byte in reply:
        writer.write(bytes([byte]))
        await asyncio.sleep(pause or random.choice((0, 0, 0, 0.001)))


async def _drip(writer: asyncio.StreamWriter, reply: bytes, random: Random) -> None:
    await _split(writer, reply, random, DRIP_S)


async def _delay(writer: asyncio.StreamWriter, reply: bytes, random: Random) -> None:
    await asyncio.sleep(random.uniform(0, MAX_DELAY_S))
    writer.write(reply)


async def _late(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    await asyncio.sleep(LATE_S)
    writer.write(reply)


FAULTS: dict[str, Fault] = {
    "pass": _pass,
    "drop": _drop,
    "half": _half,
    "stall": _stall,
    "reset": _reset,
    "split": _split,
    "drip": _drip,
    "delay": _delay,
    "late": _late,
}


class Proxy:
    """Forwards requests to the server at a Unix socket, and applies the next fault of `plan` to each reply."""

    def __init__(self, path: str, plan: Iterator[str], seed: int) -> None:
        self.connections = 0
        """The number of accepted connections."""
        self._path, self._plan, self._random = path, plan, Random(seed)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._accepted: set[socket.socket] = set()  # whose task has not started yet
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, port: Future[int]) -> None:
        """Set `port`, then serve until `stop` is called."""
        self._loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port.set_result(listener.getsockname()[1])
            async with asyncio.TaskGroup() as group:
                self._loop.add_reader(listener, self._accept, listener, group)
                await self._stopping.wait()
                self._loop.remove_reader(listener)
                for task in self._tasks:
                    task.cancel()
        for accepted in self._accepted:
            accepted.close()

    def stop(self) -> None:
        """Have `run` return; may be called from another thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stopping.set)

    def _accept(self, listener: socket.socket, group: asyncio.TaskGroup) -> None:
        """Accept a connection; asyncio's own server may fail if one arrives while it closes."""
        with suppress(BlockingIOError, ConnectionError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            self.connections += 1
            self._accepted.add(accepted)
            self._tasks.append(group.create_task(self._serve(accepted)))

    async def _serve(self, accepted: socket.socket) -> None:
        """Serve a connection until a fault or the limiter closes it."""
        self._accepted.remove(accepted)
        reader, writer = await asyncio.open_connection(sock=accepted)
        with closing(writer):
            from_server, to_server = await asyncio.open_unix_connection(self._path)
            with closing(to_server), suppress(OSError, asyncio.CancelledError):  # either ends the connection
                replies = asyncio.create_task(self._forward_replies(from_server, writer))
                try:
                    while request := await reader.read(65536):
                        to_server.write(request)
                finally:
                    replies.cancel()

    async def _forward_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while reply := await reader.read(65536):
                await FAULTS[next(self._plan)](writer, reply, self._random)


@contextmanager
def run_flaky_proxy(
    url: str, *first: str, then: tuple[str, ...] = ("pass",), seed: int = 0
) -> Iterator[tuple[str, Proxy]]:
    """Run a proxy of a server, and yield its URL: the faults `first` in order, then random ones of `then`."""
    random = Random(seed)
    proxy = Proxy(url.removeprefix("unix://"), chain(first, (random.choice(then) for _ in repeat(None))), seed)
    port = Future[int]()
    thread = Thread(target=lambda: asyncio.run(proxy.run(port)))
    thread.start()
    try:
        yield f"valkey://127.0.0.1:{port.result(timeout=60)}", proxy
    finally:
        proxy.stop()
        thread.join()
