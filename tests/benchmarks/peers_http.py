"""The applications of `http_apps` behind other packages, each with a limit that is never reached."""

from __future__ import annotations

from importlib import import_module
from itertools import count
from typing import Any

from http_apps import UNREACHED_PER_MINUTE, asgi, django, fastapi, flask, litestar, rest, starlette

from ratelab.http.asgi import App, Receive, Scope, Send

PER_MINUTE = f"{UNREACHED_PER_MINUTE}/minute"
REST_CLIENTS = 100
"""Clients of the throttle of the REST framework, which keeps the time of each request of a client for a minute."""


def slowapi() -> App:
    """Limit the Starlette service with slowapi's ASGI middleware, with headers."""
    module, app = import_module("slowapi"), starlette()
    address = import_module("slowapi.util").get_remote_address
    app.state.limiter = module.Limiter(address, default_limits=[PER_MINUTE], headers_enabled=True)
    app.add_middleware(import_module("slowapi.middleware").SlowAPIASGIMiddleware)
    return app  # type: ignore[no-any-return]


def public_client() -> App:
    """Make the bare service with clients of a public address; `client_ip` of asgi-ratelimit rejects others."""
    return _with_public_client(asgi())


def asgi_ratelimit() -> App:
    """Limit that service with asgi-ratelimit's memory backend by `client_ip`; it adds no headers."""
    module = import_module("ratelimit")
    backend = import_module("ratelimit.backends.simple").MemoryBackend()
    client_ip = import_module("ratelimit.auths.ip").client_ip
    rules = {"^/ping$": [module.Rule(minute=UNREACHED_PER_MINUTE)]}
    return _with_public_client(module.RateLimitMiddleware(asgi(), client_ip, backend, rules))


def _with_public_client(app: App) -> App:
    async def replace_client(scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"] = "1.1.1.1", 1
        await app(scope, receive, send)

    return replace_client


def public_client_limited() -> App:
    """Limit that service with ratelab's middleware."""
    from http_apps import asgi_admitted

    return _with_public_client(asgi_admitted())


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


def litestar_own() -> App:
    """Limit the Litestar service with the middleware that Litestar includes."""
    config = import_module("litestar.middleware.rate_limit").RateLimitConfig(("minute", UNREACHED_PER_MINUTE))
    return litestar(config.middleware)


def fastapi_limiter() -> App:
    """Limit the FastAPI route with fastapi-limiter's dependency and pyrate-limiter's bucket in memory."""
    module = import_module("pyrate_limiter")
    limiter = module.Limiter(module.Rate(UNREACHED_PER_MINUTE, module.Duration.MINUTE))
    return fastapi(import_module("fastapi_limiter.depends").RateLimiter(limiter=limiter))  # type: ignore[no-any-return]


def flask_limiter() -> Any:
    """Limit the Flask view with Flask-Limiter, with headers."""
    module = import_module("flask_limiter")
    address = import_module("flask_limiter.util").get_remote_address
    limiter = module.Limiter(address, storage_uri="memory://", headers_enabled=True)
    app = flask(limiter.limit(PER_MINUTE))
    limiter.init_app(app)
    return app


def throttled_flask() -> Any:
    """Limit the Flask view with throttled-py, with headers."""
    module, store = import_module("throttled.contrib.flask"), import_module("throttled").MemoryStore()
    quota = import_module("throttled").per_min(UNREACHED_PER_MINUTE)
    limiter = module.Limiter(quota, store=store, key_func=module.get_remote_address)
    app = flask(limiter.limit())
    limiter.init_app(app)
    return app


def throttled_fastapi() -> Any:
    """Limit the FastAPI route with throttled-py, with headers."""
    module, asynchronous = import_module("throttled.asyncio.contrib.fastapi"), import_module("throttled.asyncio")
    quota = import_module("throttled").per_min(UNREACHED_PER_MINUTE)
    limiter = module.Limiter(quota, store=asynchronous.MemoryStore(), key_func=module.get_remote_address)
    app = fastapi(decorate=limiter.limit())
    app.add_middleware(module.RateLimitMiddleware)
    return app


def django_ratelimit() -> Any:
    """Limit the Django view with django-ratelimit and Django's cache in memory; it adds no headers."""
    silenced = ["django_ratelimit.E003", "django_ratelimit.W001"]
    return django(
        lambda view: import_module("django_ratelimit.decorators").ratelimit(key="ip", rate=f"{UNREACHED_PER_MINUTE}/m")(
            view
        ),
        SILENCED_SYSTEM_CHECKS=silenced,
    )


def django_smart_ratelimit() -> Any:
    """Limit the Django view with django-smart-ratelimit, its memory backend and its fastest algorithm."""
    return django(
        lambda view: import_module("django_smart_ratelimit").rate_limit(
            key="ip", rate=f"{UNREACHED_PER_MINUTE}/m", algorithm="fixed_window"
        )(view),
        INSTALLED_APPS=["django_smart_ratelimit"],
    )


def rest_own() -> Any:
    """Limit the REST view with the framework's own throttle and Django's cache in memory; it adds no headers.

    The requests are those of several clients, since the throttle takes longer with each request of one.
    """
    numbers = count()

    def create_throttle() -> Any:
        class Throttle(import_module("rest_framework.throttling").AnonRateThrottle):  # type: ignore[misc]
            rate = PER_MINUTE

            def get_ident(self, request: object) -> str:
                return f"{super().get_ident(request)}-{next(numbers) % REST_CLIENTS}"

        return Throttle

    return rest(create_throttle)
