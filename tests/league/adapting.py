"""Parts that several adapters share: bounds, requests, limiters on a store."""

from __future__ import annotations

import datetime
import io
import math
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, Protocol

Answer = tuple[bool, float | None]
"""Whether a hit was allowed, and the wait in seconds that the package announced."""

Hit = Callable[..., Any]
"""`hit(key)`: returns an `Answer`, or a coroutine of one."""


class Factory(Protocol):
    """A candidate of `ratelab judge`, with its optional attributes."""

    def __call__(self, limit: int, period: float, burst: int) -> Hit: ...


def log_bound(limit: int, period: float, burst: int, window: float) -> int:
    """Return the bound of an exact sliding window: `limit` in each started period."""
    return limit * max(1, math.ceil(window / period))


def window_bound(limit: int, period: float, burst: int, window: float) -> int:
    """Return the bound of windows that start over: `limit` in each period that `window` touches."""
    return limit * (math.ceil(window / period) + 1)


def bucket_bound(limit: int, period: float, burst: int, window: float) -> int:
    """Return the bound of a bucket: a burst, and `limit` for each started period."""
    return burst + limit * math.ceil(window / period)


def bounded(bound: Callable[..., float]) -> Callable[[Any], Any]:
    """State the documented bound of a candidate."""

    def decorate(factory: Any) -> Any:
        factory.bound = bound
        return factory

    return decorate


def on_store(bound: Callable[..., float]) -> Callable[[Callable[..., Hit]], Any]:
    """Make a candidate of `connect(url, limit, period, burst)`, which returns a hit on a Redis-protocol server."""

    def decorate(connect: Callable[..., Hit]) -> Any:
        def factory(limit: int, period: float, burst: int) -> Hit:
            raise RuntimeError("this variant needs a server")

        factory.store = connect  # type: ignore[attr-defined]
        factory.bound = bound  # type: ignore[attr-defined]
        return factory

    return decorate


def without_threads(module: Any) -> None:
    """Keep a module from starting threads and timers, which remove expired entries and decide nothing."""

    class Idle:
        daemon = True

        def __init__(self, *arguments: Any, **options: Any) -> None: ...

        def start(self) -> None: ...

        def cancel(self) -> None: ...

        def is_alive(self) -> bool:
            return True

    if hasattr(module, "threading"):
        module.threading = SimpleNamespace(**{**vars(threading), "Timer": Idle, "Thread": Idle})
    else:
        module.Thread = Idle


def per_key(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that makes one limiter for each key, for packages whose limiters have no keys."""
    limiters: dict[str, Any] = {}
    lock = threading.Lock()

    def of(key: str) -> Any:
        with lock:
            if key not in limiters:
                limiters[key] = make(key)
            return limiters[key]

    return of


def import_pydantic_v1() -> None:
    """Import the part of pydantic for which FastAPI looks; its metaclass clashes with that of a replaced `date`."""
    replaced = datetime.date
    datetime.date = replaced.__mro__[-2]  # type: ignore[assignment,misc]
    try:
        import pydantic.v1  # noqa: F401
    finally:
        datetime.date = replaced  # type: ignore[misc]


def wsgi_hit(app: Callable[..., Any]) -> Hit:
    """Return a hit that sends `GET /` from the client address `key` to a WSGI application."""

    def hit(key: str) -> Answer:
        response: list[Any] = []
        environment = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_NAME": "test",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": key,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        list(app(environment, lambda status, headers, error=None: response.extend([status, headers])))
        status, headers = response
        return answer(int(status.partition(" ")[0]), {name.lower(): value for name, value in headers})

    return hit


def asgi_hit(app: Callable[..., Awaitable[None]]) -> Hit:
    """Return a hit that sends `GET /` from the client address `key` to an ASGI application."""

    async def hit(key: str) -> Answer:
        start: dict[str, Any] = {}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": (key, 1),
            "server": ("test", 80),
        }
        await app(scope, receive, send)
        headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return answer(start["status"], headers)

    return hit


def answer(status: int, headers: Any) -> Answer:
    """Return the decision in a response: 429 is a denial, `Retry-After` the wait."""
    if status not in (200, 429):
        raise RuntimeError(f"response {status}")
    announced = headers.get("retry-after") if status == 429 else None
    return status == 200, None if announced is None else float(announced)
