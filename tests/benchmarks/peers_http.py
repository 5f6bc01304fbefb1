"""What serves the requests of the HTTP benchmark: bare applications, and each middleware in front of its own.

The middleware of other packages is measured where it is installed, held to a limit that is never reached.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from ratelab.algorithms import create
from ratelab.http.app import ping_app
from ratelab.http.asgi import App, Receive, Scope, Send
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter

ADMITTING = 1_000_000_000
"""So many a minute are never reached."""


class Peer(NamedTuple):
    """Another package's middleware."""

    package: str
    """The name by which it is imported."""
    base: Callable[[], App]
    """Makes the application that it stands in front of."""
    limited: Callable[[], App]
    """Makes the same with the middleware."""


def bare() -> App:
    """Make the application that `ratelab serve` limits, without a limiter."""
    return ping_app


def admitted() -> App:
    """Put ratelab in front of it, with a quota that is never used up."""
    return RateLimitMiddleware(ping_app, MemoryLimiter(create("token-bucket", f"{ADMITTING}/min")))


def denied() -> App:
    """Put ratelab in front of it, with a quota that is used up at once."""
    return RateLimitMiddleware(ping_app, MemoryLimiter(create("token-bucket", "1/day")))


def stored(url: str) -> App:
    """Put ratelab in front of it, with a quota that is kept in a store and never used up."""
    store = AsyncValkeyLimiter(url, "token-bucket", f"{ADMITTING}/min")
    return RateLimitMiddleware(ping_app, ResilientLimiter(store))


def starlette() -> Any:
    """Make the same service with Starlette."""
    route = import_module("starlette.routing").Route
    response = import_module("starlette.responses").JSONResponse

    async def ping(request: object) -> Any:
        return response({"message": "pong"})

    return import_module("starlette.applications").Starlette(routes=[route("/ping", ping)])


def slowapi() -> App:
    """Limit the Starlette service with slowapi's ASGI middleware, its headers on."""
    module, app = import_module("slowapi"), starlette()
    address = import_module("slowapi.util").get_remote_address
    app.state.limiter = module.Limiter(address, default_limits=[f"{ADMITTING}/minute"], headers_enabled=True)
    app.add_middleware(import_module("slowapi.middleware").SlowAPIASGIMiddleware)
    return app  # type: ignore[no-any-return]


def bare_from_afar() -> App:
    """Make the bare service with clients of a public address; asgi-ratelimit's `client_ip` takes no others."""
    return _from_afar(ping_app)


def asgi_ratelimit() -> App:
    """Limit that service with asgi-ratelimit's memory backend and by its `client_ip`; it adds no headers."""
    module = import_module("ratelimit")
    backend = import_module("ratelimit.backends.simple").MemoryBackend()
    client_ip = import_module("ratelimit.auths.ip").client_ip
    return _from_afar(
        module.RateLimitMiddleware(ping_app, client_ip, backend, {"^/ping$": [module.Rule(minute=ADMITTING)]})
    )


def _from_afar(app: App) -> App:
    def renamed(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        scope["client"] = "1.1.1.1", 1
        return app(scope, receive, send)

    return renamed


def traffik() -> App:
    """Limit the Starlette service with traffik's middleware and memory backend."""
    backend = import_module("traffik.backends.inmemory").InMemoryBackend(namespace="bench")
    throttle = import_module("traffik.throttles").HTTPThrottle(uid="bench", rate=f"{ADMITTING}/min", backend=backend)
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
    """Limit it with Litestar's own middleware."""
    config = import_module("litestar.middleware.rate_limit").RateLimitConfig(("minute", ADMITTING))
    return litestar(config.middleware)


PEERS = {
    "slowapi": Peer("slowapi", starlette, slowapi),
    "asgi-ratelimit": Peer("ratelimit", bare_from_afar, asgi_ratelimit),
    "traffik": Peer("traffik", starlette, traffik),
    "litestar": Peer("litestar", litestar, litestar_limited),
}
"""Other middleware by the name of its package."""


def installed() -> dict[str, Peer]:
    """Return the peers that can be measured here."""
    return {name: peer for name, peer in PEERS.items() if find_spec(peer.package) is not None}
