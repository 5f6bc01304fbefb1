"""A TLS proxy of a store, as a server built with TLS or a TLS terminator would be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from threading import Thread

import trustme


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer), suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)


async def _serve(path: str, context: ssl.SSLContext, started: Future[tuple[int, asyncio.Event]]) -> None:
    """Forward connections to a Unix socket; set `started` to the port, and to an event that ends this."""
    tasks: set[asyncio.Task[object]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            from_store, to_store = await asyncio.open_unix_connection(path)
            await asyncio.gather(_copy(reader, to_store), _copy(from_store, writer))

    stopping = asyncio.Event()
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    started.set_result((server.sockets[0].getsockname()[1], stopping))
    await stopping.wait()
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)


@contextmanager
def run_tls_proxy(url: str, host: str, authority: trustme.CA) -> Iterator[int]:
    """Run a proxy of the server at a Unix socket, with a certificate of `authority` for `host`; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    started, loop = Future[tuple[int, asyncio.Event]](), asyncio.new_event_loop()
    thread = Thread(target=lambda: loop.run_until_complete(_serve(url.removeprefix("unix://"), context, started)))
    thread.start()
    port, stopping = started.result(timeout=60)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()
