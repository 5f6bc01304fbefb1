"""Who a client is, and the store's password, are found nowhere: not in the store, nor in what is said of it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from asgi import Answer, request, scope_of
from invalid_stores import BAD_STORES, BadStore
from limited_apps import Handler
from valkey import Valkey
from valkey_servers import ask, plenty, plenty_async

from ratelab.errors import StoreError
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

CANARY = "sk-canary-4b1d"
DEADLINE = 0.05


def kept(server: ValkeyServer) -> bytes:
    """Return every key of the store, and what it holds."""
    with Valkey.from_url(server.url) as client:
        return b"\n".join(key + b"=" + client.get(key) for key in client.scan_iter())


def answered(limiter: AsyncValkeyLimiter, on_store_error: str = "closed", requests: int = 1) -> list[Answer]:
    """Return the middleware's answers to requests with the secret in a header."""
    app = RateLimitMiddleware(Handler(), ResilientLimiter(limiter, on_store_error), "header:X-API-Key")

    async def ask_all() -> list[Answer]:
        scope = scope_of(headers=f"X-API-Key: {CANARY}")
        answers = [await request(app, scope) for _ in range(requests)]
        limiter.close()
        return answers

    return asyncio.run(ask_all())


@contextmanager
def overheard(server: ValkeyServer, said: list[str]) -> Iterator[None]:
    """Write down all that the server is asked meanwhile."""
    listening = Event()

    def listen() -> None:
        with Valkey.from_url(server.url) as client, client.monitor() as monitor:
            listening.set()
            for told in monitor.listen():
                said.append(told["command"])
                if "the end" in told["command"]:
                    return

    thread = Thread(target=listen)
    thread.start()
    listening.wait(10)
    try:
        yield
    finally:
        ask(server.url, "ECHO", "the end")
        thread.join()


def a_store_never_learns_a_name(store: ValkeyServer) -> str:
    """Return what the middleware answers meanwhile."""
    said: list[str] = []
    limiter = plenty(store.url)
    with overheard(store, said):
        limiter.hit(CANARY)
        answers = repr(answered(plenty_async(store.url)))
    limiter.close()
    held = kept(store).decode()
    assert (sum("EVALSHA" in command.upper() for command in said), held.count("rl:{")) == (2, 2)
    assert CANARY not in " ".join(said)
    assert CANARY not in held
    return answers


def test_neither_the_store_nor_the_log_nor_an_answer_tells_who_a_client_is(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = a_store_never_learns_a_name(store)
    assert "status=200" in answers
    assert CANARY not in answers + caplog.text


def failing(url: str) -> str:
    """Return all that a program may print about hits that a store does not decide."""
    limiter, told = plenty(url, DEADLINE), ""

    async def hit() -> None:
        limiter_async = plenty_async(url, DEADLINE)
        try:
            await limiter_async.hit(CANARY)
        finally:
            limiter_async.close()

    for call in (lambda: limiter.hit(CANARY), lambda: asyncio.run(hit())):
        with pytest.raises(StoreError) as raised:
            call()
        told += "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    limiter.close()
    return told + repr(answered(plenty_async(url, DEADLINE), requests=4))


@pytest.mark.parametrize("bad", BAD_STORES, ids=lambda bad: bad.__name__)
def test_no_failure_tells_who_asked_or_the_password(
    store: ValkeyServer, bad: BadStore, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with bad(store) as url:
        told = failing(url)
    assert told.count("StoreError") >= 2
    assert "the store is down" in caplog.text
    told += caplog.text + "".join(capfd.readouterr())
    assert [secret for secret in (CANARY, ":wrong@", "'wrong'", "needless") if secret in told] == []
