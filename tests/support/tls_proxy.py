"""An encrypted way to a store, as a server built with TLS, or a terminator before it, offers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from threading import Thread

import trustme


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)


async def _carry(path: str, context: ssl.SSLContext, told: Future[tuple[int, asyncio.Event]]) -> None:
    """Carry connections to a Unix socket until the event is set."""
    carrying: set[asyncio.Task[object]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        with suppress(asyncio.CancelledError):
            from_store, to_store = await asyncio.open_unix_connection(path)
            await asyncio.gather(_pipe(reader, to_store), _pipe(from_store, writer))

    stopping = asyncio.Event()
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    told.set_result((server.sockets[0].getsockname()[1], stopping))
    await stopping.wait()
    server.close()
    for task in carrying:
        task.cancel()
    await asyncio.gather(*carrying)


@contextmanager
def encrypted(url: str, name: str, authority: trustme.CA) -> Iterator[int]:
    """Yield a port where the server of a Unix socket shows a certificate of `authority` for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    told, loop = Future[tuple[int, asyncio.Event]](), asyncio.new_event_loop()
    thread = Thread(target=lambda: loop.run_until_complete(_carry(url.removeprefix("unix://"), context, told)))
    thread.start()
    port, stopping = told.result(timeout=10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
