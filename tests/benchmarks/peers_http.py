"""Applications for the HTTP benchmark: bare ones, and ones behind ratelab's or another package's middleware.

Other packages are measured if they are installed, with a limit that is never reached.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from ratelab.algorithms import create
from ratelab.http.app import ping_app
from ratelab.http.asgi import App, Receive, Scope, Send
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter

UNREACHED_PER_MINUTE = 1_000_000_000


class HttpPeer(NamedTuple):
    """Another package's middleware."""

    module: str
    """The name by which it is imported."""
    bare: Callable[[], App]
    """Makes the application without the middleware."""
    limited: Callable[[], App]
    """Makes the application behind the middleware."""


def bare() -> App:
    """Make the application of `ratelab serve`, without a limiter."""
    return ping_app


def admitted() -> App:
    """Make the application behind a quota that is never used up."""
    return RateLimitMiddleware(ping_app, MemoryLimiter(create("token-bucket", f"{UNREACHED_PER_MINUTE}/min")))


def denied() -> App:
    """Make the application behind a quota that is used up by the first request."""
    return RateLimitMiddleware(ping_app, MemoryLimiter(create("token-bucket", "1/day")))


def stored(url: str) -> App:
    """Make the application behind a quota in a store, which is never used up."""
    store = AsyncValkeyLimiter(url, "token-bucket", f"{UNREACHED_PER_MINUTE}/min")
    identity = Identity(secret="a text for benchmarks")  # noqa: S106  (nothing to protect)
    return RateLimitMiddleware(ping_app, ResilientLimiter(store), identity)


def starlette() -> Any:
    """Make the same service with Starlette."""
    route = import_module("starlette.routing").Route
    response = import_module("starlette.responses").JSONResponse

    async def ping(request: object) -> Any:
        return response({"message": "pong"})

    return import_module("starlette.applications").Starlette(routes=[route("/ping", ping)])


def slowapi() -> App:
    """Limit the Starlette service with slowapi's ASGI middleware, with headers."""
    module, app = import_module("slowapi"), starlette()
    address = import_module("slowapi.util").get_remote_address
    limits = [f"{UNREACHED_PER_MINUTE}/minute"]
    app.state.limiter = module.Limiter(address, default_limits=limits, headers_enabled=True)
    app.add_middleware(import_module("slowapi.middleware").SlowAPIASGIMiddleware)
    return app  # type: ignore[no-any-return]


def bare_public_client() -> App:
    """Make the bare service with clients of a public address; `client_ip` of asgi-ratelimit rejects others."""
    return _with_public_client(ping_app)


def asgi_ratelimit() -> App:
    """Limit that service with asgi-ratelimit's memory backend by `client_ip`; it adds no headers."""
    module = import_module("ratelimit")
    backend = import_module("ratelimit.backends.simple").MemoryBackend()
    client_ip = import_module("ratelimit.auths.ip").client_ip
    rules = {"^/ping$": [module.Rule(minute=UNREACHED_PER_MINUTE)]}
    return _with_public_client(module.RateLimitMiddleware(ping_app, client_ip, backend, rules))


def _with_public_client(app: App) -> App:
    async def replace_client(scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"] = "1.1.1.1", 1
        await app(scope, receive, send)

    return replace_client


def traffik() -> App:
    """Limit the Starlette service with traffik's middleware and memory backend."""
    backend = import_module("traffik.backends.inmemory").InMemoryBackend(namespace="benchmark")
    throttle = import_module("traffik.throttles").HTTPThrottle(
        uid="benchmark", rate=f"{UNREACHED_PER_MINUTE}/min", backend=backend
    )
    middleware, app = import_module("traffik.middleware"), starlette()
    app.router.lifespan_context = backend.lifespan
    app.add_middleware(
        middleware.ThrottleMiddleware, middleware_throttles=[middleware.MiddlewareThrottle(throttle)], backend=backend
    )
    return app  # type: ignore[no-any-return]


def litestar(*middleware: Any) -> App:
    """Make the same service with Litestar."""
    module = import_module("litestar")

    async def ping() -> dict[str, str]:
        return {"message": "pong"}

    return module.Litestar([module.get("/ping")(ping)], middleware=middleware, openapi_config=None)  # type: ignore[no-any-return]


def litestar_limited() -> App:
    """Limit the Litestar service with the middleware that Litestar includes."""
    config = import_module("litestar.middleware.rate_limit").RateLimitConfig(("minute", UNREACHED_PER_MINUTE))
    return litestar(config.middleware)


PEERS = {
    "slowapi": HttpPeer("slowapi", starlette, slowapi),
    "asgi-ratelimit": HttpPeer("ratelimit", bare_public_client, asgi_ratelimit),
    "traffik": HttpPeer("traffik", starlette, traffik),
    "litestar": HttpPeer("litestar", litestar, litestar_limited),
}
"""Middleware by the name of its package."""


def installed_peers() -> dict[str, HttpPeer]:
    """Return the peers that are installed."""
    return {name: peer for name, peer in PEERS.items() if find_spec(peer.module) is not None}
