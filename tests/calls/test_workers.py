"""Workers and gRPC: the code of the manual runs in the real libraries, and denied work is repeated in time."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest
import time_machine
from manual import blocks
from redis import Redis
from valkey_servers import AMPLE_DEADLINE

from ratelab import ManualClock, MemoryLimiter, create
from ratelab.stores.valkey.server import ValkeyServer

PAGE = [one.text for one in blocks("python") if one.page == "ratelab/docs/workers.md"]
SHOWN_STORE = '("valkey://127.0.0.1:6379/1", "gcra", "5/s", '


def load(part: str, store: str = "", rate: str = "") -> ModuleType:
    """Run the code of the page that contains `part`, with another store and rate, as a module."""
    (text,) = (one for one in PAGE if part in one)
    if store:
        assert SHOWN_STORE in text
        text = text.replace(SHOWN_STORE, f'("{store}?db=1", "gcra", "{rate}", burst=1, deadline={AMPLE_DEADLINE}, ')
    module = ModuleType("mailer")
    sys.modules["mailer"] = module
    exec(compile(text, "mailer.py", "exec"), vars(module))  # noqa: S102  (our own text)
    return module


@pytest.fixture(autouse=True)
def _unloaded() -> Iterator[None]:
    yield
    sys.modules.pop("mailer", None)


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore the handlers of signals that a worker replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def redis(store: ValkeyServer) -> Iterator[Redis]:
    with Redis.from_url(store.url) as client:
        yield client


# --- RQ, arq and Celery


@pytest.mark.slow
def test_rq_schedules_a_denied_job_and_runs_it_then(redis: Redis, store: ValkeyServer, signals: None) -> None:
    from rq import Queue, SimpleWorker
    from rq.scheduler import RQScheduler

    mailer = load("from rq import Retry", store.url, "2/min")
    queue = Queue(connection=redis)
    done, denied = (queue.enqueue(mailer.send_mail, "alice@example.org") for _ in range(2))
    run_worker = partial(SimpleWorker([queue], connection=redis).work, burst=True, logging_level="ERROR")
    before = datetime.now(UTC)
    run_worker()
    assert done.return_value() == "sent to alice@example.org"
    (due,) = (queue.scheduled_job_registry.get_scheduled_time(one) for one in [denied.id])
    assert timedelta(seconds=29) < due - before <= timedelta(seconds=40)
    mailer.limiter.reset("example.org")
    with time_machine.travel(due):
        scheduler: Any = RQScheduler([queue], connection=redis)
        scheduler.acquire_locks()
        scheduler.enqueue_scheduled_jobs()
        scheduler.release_locks()
    run_worker()
    assert denied.return_value() == "sent to alice@example.org"
    mailer.limiter.close()


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # by arq
def test_arq_repeats_a_denied_job_when_it_can_be_admitted(store: ValkeyServer) -> None:
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker

    async def check() -> None:
        mailer = load("from arq import Retry", store.url, "20/s")
        settings = RedisSettings(unix_socket_path=store.url.removeprefix("unix://"))
        pool = await create_pool(settings)
        jobs = [await pool.enqueue_job("send_mail", "alice@example.org") for _ in range(3)]
        options = {name: value for name, value in vars(mailer.WorkerSettings).items() if not name.startswith("_")}
        worker = Worker(**options, redis_pool=pool, burst=True, poll_delay=0.01, handle_signals=False)
        hit, denials = mailer.limiter.hit, []

        async def count_denials(*arguments: Any) -> Any:
            decision = await hit(*arguments)
            denials.extend([decision] * (not decision.allowed))
            return decision

        mailer.limiter.hit = count_denials
        await worker.async_run()
        assert [await job.result() for job in jobs if job] == ["sent to alice@example.org"] * 3
        assert worker.jobs_retried == len(denials)  # two or more, unless this machine delays jobs
        assert worker.jobs_failed == 0
        mailer.limiter.close()
        await worker.close()

    asyncio.run(check())


@pytest.fixture
def logs() -> Iterator[None]:
    """Restore the root logger, which a worker of Celery configures."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.slow
def test_celery_repeats_a_denied_task_when_it_can_be_admitted(store: ValkeyServer, signals: None, logs: None) -> None:
    from celery.contrib.testing.worker import start_worker

    mailer = load("from celery import", store.url, "4/s")
    mailer.app.conf.update(broker_url="memory://", result_backend="cache+memory://")
    mailer.app.conf.update(broker_transport_options={"polling_interval": 0.02}, worker_timer_precision=0.02)
    with start_worker(mailer.app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
        start = time.monotonic()
        results = [mailer.send_mail.delay("alice@example.org") for _ in range(3)]
        assert [one.get(timeout=60, interval=0.02) for one in results] == ["sent to alice@example.org"] * 3
        assert time.monotonic() - start >= 0.5
    mailer.limiter.close()


# --- gRPC


def echo_many(request: Any, context: Any) -> Iterator[bytes]:
    yield from (request, request)


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "unary_unary": lambda request, context: request,
    "unary_stream": echo_many,
    "stream_unary": lambda requests, context: b"".join(requests),
    "stream_stream": lambda requests, context: requests,
}


async def echo(request: Any, context: Any) -> bytes:
    return request  # type: ignore[no-any-return]


async def join(requests: Any, context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def echo_stream(request: Any, context: Any) -> AsyncIterator[bytes]:
    for one in (request, request):
        yield one


async def echo_requests(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


ASYNC_FUNCTIONS = {
    "unary_unary": echo,
    "unary_stream": echo_stream,
    "stream_unary": join,
    "stream_stream": echo_requests,
}


def add_methods(server: Any, functions: dict[str, Any]) -> int:
    """Add a method of each kind to a server, and return its port."""
    handlers = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(call) for kind, call in functions.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", handlers),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    return port


@contextmanager
def run_server(limiter: Any) -> Iterator[int]:
    """Run a server during the block, with a method of each kind; yield its port."""
    page = load("class RateLimitInterceptor")
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[page.RateLimitInterceptor(limiter)])
    port = add_methods(server, FUNCTIONS)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def send(channel: grpc.Channel, kind: str) -> bytes:
    """Call a method of a kind, and return the joined responses."""
    request = b"x" if kind.startswith("unary") else iter([b"x", b"x"])
    response = getattr(channel, kind)(f"/echo/{kind}")(request)
    return response if isinstance(response, bytes) else b"".join(response)


def check_denial(error: Any, pushback: str, details: str) -> None:
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == details
    assert ("grpc-retry-pushback-ms", pushback) in [(name, value) for name, value in error.trailing_metadata()]


def test_a_client_with_a_retry_policy_repeats_a_denied_call_in_time() -> None:
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "60s",
        "maxBackoff": "60s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    options = [("grpc.service_config", config)]
    with (
        run_server(MemoryLimiter(create("gcra", "20/s", burst=1))) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel,
    ):
        assert [send(channel, "unary_unary") for _ in range(3)] == [b"x"] * 3


def check_methods(port: int, clock: ManualClock) -> None:
    """Check that a server admits one call a minute of each kind, from all ports of this address together."""
    for kind in FUNCTIONS:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert send(channel, kind) == (b"x" if kind == "unary_unary" else b"xx")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                send(channel, kind)
            check_denial(caught.value, "60000", "rate limit exceeded: retry after 60 s")
        clock.advance(60 * 10**9)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/echo/unknown")(b"x")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_kind_of_method_is_limited() -> None:
    clock = ManualClock()
    with run_server(MemoryLimiter(create("gcra", "1/min"), clock)) as port:
        check_methods(port, clock)


def test_every_kind_of_asynchronous_method_is_limited() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(create("gcra", "1/min"), clock)

    class Awaited:
        async def hit(self, key: str) -> Any:
            return limiter.hit(key)

    async def check() -> None:
        page = load("class AsyncRateLimitInterceptor")
        server = grpc.aio.server(interceptors=[page.AsyncRateLimitInterceptor(Awaited())])
        port = add_methods(server, ASYNC_FUNCTIONS)
        await server.start()
        try:
            await asyncio.to_thread(check_methods, port, clock)
        finally:
            await server.stop(None)

    asyncio.run(check())


def test_a_call_that_can_never_be_admitted_is_not_repeated() -> None:
    class Impossible:
        def hit(self, key: str) -> Any:
            return MemoryLimiter(create("gcra", "1/min"), ManualClock()).hit(key, 2)

    with (
        run_server(Impossible()) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        send(channel, "unary_unary")
    check_denial(caught.value, "-1", "rate limit exceeded: retry after inf s")
