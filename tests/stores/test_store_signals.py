"""Signals: a hit within a handler is decided, and exceptions that a handler raises pass unchanged."""

from __future__ import annotations

import asyncio
import gc
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from invalid_stores import stopped
from serve_process import wait_until
from valkey_servers import LARGE_BURST, collect_connections, make_async_limiter, make_limiter

from ratelab.errors import StoreError
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.stores.valkey.connection_pool import BlockingConnection
from ratelab.stores.valkey.server import ValkeyServer

SERVERS = ["valkey"]


class SoftTimeLimitError(Exception):
    """Raised by a task queue in the middle of a task."""


class SignalledOSError(OSError):
    """An exception of a signal handler that looks like one of a connection."""


EXCEPTIONS = [
    KeyboardInterrupt,
    SystemExit,
    SoftTimeLimitError,
    TimeoutError,
    ConnectionError,
    SignalledOSError,
    StoreError,
]


@contextmanager
def raising(create: Callable[[], BaseException | None]) -> Iterator[None]:
    """Raise an exception in the handler of SIGALRM during the block; nothing for None."""

    def ring(*_: object) -> None:
        if (exception := create()) is not None:
            raise exception

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def raising_after(wait: Callable[[], object], exception: BaseException) -> Iterator[None]:
    """Raise an exception in a signal handler once `wait` has returned in another thread."""
    raised = threading.Event()

    def find_exception() -> BaseException | None:
        is_first = not raised.is_set()
        raised.set()
        return exception if is_first else None

    def interrupt() -> None:
        wait()
        while not raised.is_set():  # again for a call that began to block after a signal, before its handler ran
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            raised.wait(0.1)

    thread = threading.Thread(target=interrupt)
    with raising(find_exception):
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_an_exception_of_a_signal_handler_during_a_hit_passes(
    store: ValkeyServer, exception: type[BaseException]
) -> None:
    raised = exception("other", "by the handler") if exception is StoreError else exception("by the handler")
    with ValkeyLimiter(store.url, "token-bucket", "1/day", LARGE_BURST, deadline=20, connections=1) as limiter:
        limiter.hit("alice")
        idle = limiter.pools.find(None)._idle
        begun = partial(wait_until, lambda: not idle)
        with stopped(store), pytest.raises(exception) as caught, raising_after(begun, raised):
            limiter.hit("alice")
        assert caught.value is raised
        assert limiter.hit("bob").remaining == LARGE_BURST - 1
        assert len(limiter.pools.find(None)._idle) == 1


@pytest.mark.parametrize("exception", [TimeoutError, SoftTimeLimitError])
def test_an_exception_of_a_signal_handler_while_connecting_passes(exception: type[Exception]) -> None:
    raised = exception("by the handler")
    with ExitStack() as opened, socket.create_server(("127.0.0.1", 0)) as listener:  # which never answers
        url = f"valkey://:password@127.0.0.1:{listener.getsockname()[1]}"

        def read() -> None:
            opened.enter_context(listener.accept()[0]).recv(1)  # the password

        with make_limiter(url) as limiter, pytest.raises(exception) as caught, raising_after(read, raised):
            limiter.hit("alice")
    assert caught.value is raised


def test_an_exception_of_a_signal_handler_while_waiting_for_a_connection_passes(store: ValkeyServer) -> None:
    raised = SoftTimeLimitError()
    with ValkeyLimiter(store.url, "token-bucket", "1/day", LARGE_BURST, deadline=20, connections=1) as limiter:
        limiter.hit("alice")
        with stopped(store):
            other = threading.Thread(target=limiter.hit, args=("alice",))
            other.start()
            while limiter.pools.find(None)._idle:
                time.sleep(0.001)
            waiting = partial(wait_until, lambda: limiter.pools.find(None)._waiting)
            with pytest.raises(SoftTimeLimitError) as caught, raising_after(waiting, raised):
                limiter.hit("alice")
        other.join()
        assert caught.value is raised
        assert not limiter.pools.find(None)._waiting
        assert limiter.hit("alice").remaining == LARGE_BURST - 3


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_exceptions_of_signal_handlers_at_any_moment_lose_no_connection(store: ValkeyServer) -> None:
    hits, interrupts = 0, 0
    gc.collect()
    gc.freeze()  # so that collecting connections takes no time for the objects of other tests
    with ValkeyLimiter(store.url, "token-bucket", "1/h", LARGE_BURST * 10, deadline=20, connections=2) as limiter:
        while interrupts < 300:
            try:
                with raising(SoftTimeLimitError):
                    signal.setitimer(signal.ITIMER_REAL, 0.0011 + interrupts % 7 * 1e-5)
                    for _ in range(1000):  # not endless, since a finalizer may swallow the exception
                        limiter.hit("alice")
                        hits += 1
            except SoftTimeLimitError:
                interrupts += 1
            except UnboundLocalError:  # by which a `finally` in the constructor of valkey-py's connections replaces it
                interrupts += 1
            collect_connections()
            assert len(limiter.pools.find(None)._idle) == 2
        charged = LARGE_BURST * 10 - limiter.hit("alice", 0).remaining
        assert hits <= charged <= hits + interrupts


def test_an_exception_while_a_connection_is_replaced_adds_no_other(
    store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise SoftTimeLimitError

    monkeypatch.setattr(BlockingConnection, "take_over", interrupted)
    with ValkeyLimiter(store.url, "token-bucket", "1/h", deadline=20, connections=2) as limiter:
        with pytest.raises(SoftTimeLimitError):
            limiter.hit("alice")  # whose first reply is an error: the store does not know the script
        collect_connections()
        assert len(limiter.pools.find(None)._idle) == 2


def test_a_hit_within_a_signal_handler_is_decided(store: ValkeyServer) -> None:
    with make_limiter(store.url) as limiter:
        nested: list[int] = []

        def ring(*_: object) -> None:
            nested.append(limiter.hit("nested").remaining)
            signal.setitimer(signal.ITIMER_REAL, 0.001)  # only now: on a slow machine, hits would nest without end

        previous = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        try:
            count = 0
            while len(nested) < 50:
                limiter.hit("alice")
                count += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert limiter.hit("alice", 0).remaining == LARGE_BURST - count
        assert nested == [LARGE_BURST - 1 - number for number in range(len(nested))]


class NotingSelector(selectors.DefaultSelector):
    """A selector that notes when its loop has nothing to do but wait: then no callback swallows an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            self.waits.set()
        return super().select(timeout)


def test_an_exception_of_a_signal_handler_passes_through_an_event_loop(store: ValkeyServer) -> None:
    raised, selector = SoftTimeLimitError(), NotingSelector()

    async def hit() -> None:
        await limiter.hit("alice")

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        limiter = make_async_limiter(store.url, deadline=20)
        runner.run(hit())
        selector.waits.clear()
        with stopped(store), pytest.raises(SoftTimeLimitError) as caught, raising_after(selector.waits.wait, raised):
            runner.run(hit())
        assert caught.value is raised
        runner.run(hit())
        limiter.close()
