"""A network between a limiter and its store that loses, holds up and breaks replies as a test plans."""

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

LONGEST_DELAY = 0.3
"""Seconds for which `delay` holds a reply up at most."""

LATE = 0.45
"""Seconds for which `late` does."""

DRIP = 0.04
"""Seconds between two bytes of `drip`."""

_RST = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)  # says that closing means breaking

Fault = Callable[[asyncio.StreamWriter, bytes, Random], Awaitable[None]]
"""What becomes of a reply, which the server has given."""


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
    writer.transport.get_extra_info("socket").setsockopt(*_RST)
    writer.transport.abort()


async def _split(writer: asyncio.StreamWriter, reply: bytes, draw: Random, pause: float = 0) -> None:
    for byte in reply:
        writer.write(bytes([byte]))
        await asyncio.sleep(pause or draw.choice((0, 0, 0, 0.001)))


async def _drip(writer: asyncio.StreamWriter, reply: bytes, draw: Random) -> None:
    await _split(writer, reply, draw, DRIP)


async def _delay(writer: asyncio.StreamWriter, reply: bytes, draw: Random) -> None:
    await asyncio.sleep(draw.uniform(0, LONGEST_DELAY))
    writer.write(reply)


async def _late(writer: asyncio.StreamWriter, reply: bytes, _: Random) -> None:
    await asyncio.sleep(LATE)
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


class Network:
    """Passes every request on to the server whose Unix socket is `path`, and does with each reply what `plan` says."""

    def __init__(self, path: str, plan: Iterator[str], seed: int) -> None:
        self.connections = 0
        """How many were made."""
        self._path, self._plan, self._draw = path, plan, Random(seed)
        self._stopping = asyncio.Event()
        self._carrying: list[asyncio.Task[None]] = []
        self._accepted: set[socket.socket] = set()  # and not carried yet
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, port: Future[int]) -> None:
        """Carry until told to stop; tell the port first."""
        self._loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            port.set_result(listener.getsockname()[1])
            async with asyncio.TaskGroup() as carrying:
                self._loop.add_reader(listener, self._accept, listener, carrying)
                await self._stopping.wait()
                self._loop.remove_reader(listener)
                for task in self._carrying:
                    task.cancel()
        for accepted in self._accepted:
            accepted.close()

    def stop(self) -> None:
        """Have `run` end, from another thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stopping.set)

    def _accept(self, listener: socket.socket, carrying: asyncio.TaskGroup) -> None:
        """Accept a connection; asyncio's own server may fail for one that comes while it closes."""
        with suppress(BlockingIOError, ConnectionError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            self.connections += 1
            self._accepted.add(accepted)
            self._carrying.append(carrying.create_task(self._carry(accepted)))

    async def _carry(self, accepted: socket.socket) -> None:
        """Serve a connection until a fault or the limiter ends it."""
        self._accepted.remove(accepted)
        reader, writer = await asyncio.open_connection(sock=accepted)
        with closing(writer):
            from_server, to_server = await asyncio.open_unix_connection(self._path)
            with closing(to_server), suppress(OSError, asyncio.CancelledError):  # either is the end of it
                answering = asyncio.create_task(self._answer(from_server, writer))
                try:
                    while request := await reader.read(65536):
                        to_server.write(request)
                finally:
                    answering.cancel()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while reply := await reader.read(65536):
                await FAULTS[next(self._plan)](writer, reply, self._draw)


@contextmanager
def network(url: str, *first: str, then: tuple[str, ...] = ("pass",), seed: int = 0) -> Iterator[tuple[str, Network]]:
    """Yield the URL of a network before a server: what befalls the `first` replies, and one of `then` each later."""
    draw = Random(seed)
    carrier = Network(url.removeprefix("unix://"), chain(first, (draw.choice(then) for _ in repeat(None))), seed)
    port = Future[int]()
    thread = Thread(target=lambda: asyncio.run(carrier.run(port)))
    thread.start()
    try:
        yield f"valkey://127.0.0.1:{port.result(timeout=10)}", carrier
    finally:
        carrier.stop()
        thread.join()
