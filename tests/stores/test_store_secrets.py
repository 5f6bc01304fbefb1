"""Names of clients and passwords appear neither in the store nor in logs, responses and errors."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from asgi import AsgiResponse, request, scope_of
from invalid_stores import INVALID_STORES, InvalidStore
from limited_apps import Handler
from valkey import Valkey
from valkey_servers import make_async_limiter, make_limiter, send_command

from ratelab.errors import StoreError
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

CANARY = "sk-canary-4b1d"
KEYED_BY = "a text for tests"
DEADLINE = 0.05
LAST_COMMAND = "the end"


def dump_store(server: ValkeyServer) -> str:
    """Return every key of the store with its value."""
    with Valkey.from_url(server.url) as client:
        return b"\n".join(key + b"=" + client.get(key) for key in client.scan_iter()).decode()


def send_requests(limiter: AsyncValkeyLimiter, on_store_error: str = "closed", count: int = 1) -> list[AsgiResponse]:
    """Return the middleware's responses to requests with the canary in a header."""
    identity = Identity("header:X-API-Key", secret=KEYED_BY)
    app = RateLimitMiddleware(Handler(), ResilientLimiter(limiter, on_store_error), identity)

    async def send_all() -> list[AsgiResponse]:
        scope = scope_of(headers=f"X-API-Key: {CANARY}")
        responses = [await request(app, scope) for _ in range(count)]
        limiter.close()
        return responses

    return asyncio.run(send_all())


@contextmanager
def monitor(server: ValkeyServer) -> Iterator[list[str]]:
    """Collect all commands that the server receives during the block; the list is complete after it."""
    commands: list[str] = []
    listening = Event()

    def listen() -> None:
        with Valkey.from_url(server.url) as client, client.monitor() as events:
            listening.set()
            for event in events.listen():
                commands.append(event["command"])
                if LAST_COMMAND in event["command"]:
                    return

    thread = Thread(target=listen)
    thread.start()
    listening.wait(60)
    try:
        yield commands
    finally:
        send_command(server.url, "ECHO", LAST_COMMAND)
        thread.join()


def check_that_names_are_hidden(store: ValkeyServer) -> str:
    """Check that neither a command nor a key holds a client's name; return the middleware's response."""
    limiter = make_limiter(store.url)
    with monitor(store) as commands:
        limiter.hit(CANARY)
        response = repr(send_requests(make_async_limiter(store.url)))
    limiter.close()
    content = dump_store(store)
    assert (sum("EVALSHA" in command.upper() for command in commands), content.count(":token-bucket:")) == (2, 2)
    assert CANARY not in " ".join(commands)
    assert CANARY not in content
    assert KEYED_BY not in content
    return response


def test_names_of_clients_are_not_in_the_store_the_log_or_responses(
    store: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    response = check_that_names_are_hidden(store)
    assert "status=200" in response
    assert CANARY not in response + caplog.text


def collect_failures(url: str) -> str:
    """Return all text that a program may print about hits that a store does not decide."""
    limiter, text = make_limiter(url, DEADLINE), ""

    async def hit() -> None:
        limiter_async = make_async_limiter(url, DEADLINE)
        try:
            await limiter_async.hit(CANARY)
        finally:
            limiter_async.close()

    for call in (lambda: limiter.hit(CANARY), lambda: asyncio.run(hit())):
        with pytest.raises(StoreError) as raised:
            call()
        text += "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    limiter.close()
    return text + repr(send_requests(make_async_limiter(url, DEADLINE), count=4))


@pytest.mark.parametrize("invalid", INVALID_STORES, ids=lambda invalid: invalid.__name__)
def test_a_failure_reveals_neither_the_client_nor_the_password(
    store: ValkeyServer,
    invalid: InvalidStore,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    with invalid(store) as url:
        text = collect_failures(url)
    assert text.count("StoreError") >= 2
    assert "the store is down" in caplog.text
    text += caplog.text + "".join(capfd.readouterr())
    assert [secret for secret in (CANARY, ":wrong@", "'wrong'", "needless") if secret in text] == []
