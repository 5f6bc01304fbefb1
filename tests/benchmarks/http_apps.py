"""Applications for the HTTP benchmark: each framework's bare one, and the same behind ratelab.

All of them answer `GET /ping`. The functions that make them run in the process that serves.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ratelab.algorithms import Policy, create
from ratelab.http.app import ping_app
from ratelab.http.asgi import App
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter

UNREACHED_PER_MINUTE = 1_000_000_000
UNREACHED = f"{UNREACHED_PER_MINUTE}/min"
USED_UP = "1/day"
"""A quota that the first request uses up."""

MESSAGE = {"message": "pong"}
BODY = b'{"message":"pong"}'


def create_policy(rate: str) -> Policy:
    """Return the policy of a token bucket."""
    return create("token-bucket", rate)


# --- ASGI


def asgi() -> App:
    """Make the application of `ratelab serve`, without a limiter."""
    return ping_app


def asgi_admitted() -> App:
    """Make the application behind a quota that is never used up."""
    return RateLimitMiddleware(ping_app, MemoryLimiter(create_policy(UNREACHED)))


def asgi_denied() -> App:
    """Make the application behind a quota that is used up."""
    return RateLimitMiddleware(ping_app, MemoryLimiter(create_policy(USED_UP)))


def asgi_stored(url: str) -> App:
    """Make the application behind a quota in a store, which is never used up."""
    store = AsyncValkeyLimiter(url, "token-bucket", UNREACHED)
    identity = Identity(secret="a text for benchmarks")  # noqa: S106  (nothing to protect)
    return RateLimitMiddleware(ping_app, ResilientLimiter(store), identity)


def starlette() -> Any:
    """Make the service with Starlette."""
    route = import_module("starlette.routing").Route
    response = import_module("starlette.responses").JSONResponse

    async def ping(request: object) -> Any:
        return response(MESSAGE)

    return import_module("starlette.applications").Starlette(routes=[route("/ping", ping)])


def starlette_limited() -> Any:
    """Limit the Starlette service by the middleware."""
    app = starlette()
    app.add_middleware(RateLimitMiddleware, limiter=MemoryLimiter(create_policy(UNREACHED)))
    return app


def fastapi(dependency: Callable[..., Any] | None = None, decorate: Callable[[Any], Any] = lambda route: route) -> Any:
    """Make the service with FastAPI, whose route has a dependency, by default an empty one, and decorate the route."""
    module, request = import_module("fastapi"), import_module("starlette.requests").Request
    app = module.FastAPI()

    async def empty() -> None:
        pass

    async def ping(request: object) -> dict[str, str]:
        return MESSAGE

    ping.__annotations__["request"] = request
    app.get("/ping", dependencies=[module.Depends(dependency or empty)])(decorate(ping))
    return app


def fastapi_limited() -> Any:
    """Limit the route by a dependency."""
    return fastapi(import_module("ratelab.fastapi").RateLimit(UNREACHED))


def litestar(*middleware: Any) -> App:
    """Make the service with Litestar."""
    module = import_module("litestar")

    async def ping() -> dict[str, str]:
        return MESSAGE

    return module.Litestar([module.get("/ping")(ping)], middleware=middleware, openapi_config=None)  # type: ignore[no-any-return]


def litestar_limited() -> App:
    """Limit the Litestar service by the middleware."""
    module = import_module("litestar.middleware")
    return litestar(module.DefineMiddleware(RateLimitMiddleware, limiter=MemoryLimiter(create_policy(UNREACHED))))


# --- WSGI


def wsgi() -> Any:
    """Make the service as a function."""

    def ping(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
        return [BODY]

    return ping


def wsgi_admitted() -> Any:
    """Make the service behind a quota that is never used up."""
    return import_module("ratelab.wsgi").RateLimitMiddleware(wsgi(), MemoryLimiter(create_policy(UNREACHED)))


def wsgi_denied() -> Any:
    """Make the service behind a quota that is used up."""
    return import_module("ratelab.wsgi").RateLimitMiddleware(wsgi(), MemoryLimiter(create_policy(USED_UP)))


def flask(decorate: Callable[[Any], Any] = lambda view: view) -> Any:
    """Make the service with Flask, and decorate its view."""
    app = import_module("flask").Flask("benchmark")

    def ping() -> dict[str, str]:
        return MESSAGE

    app.get("/ping")(decorate(ping))
    return app


def flask_limited() -> Any:
    """Limit the Flask view."""
    return flask(import_module("ratelab.flask").limit(UNREACHED))


def flask_behind_middleware() -> Any:
    """Put the Flask service behind the WSGI middleware."""
    return import_module("ratelab.wsgi").RateLimitMiddleware(flask(), MemoryLimiter(create_policy(UNREACHED)))


# --- Django

STARTPROJECT = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
"""The middleware of a project that `django-admin startproject` has created."""

DJANGO_LIMIT = "ratelab.django.RateLimitMiddleware"
urlpatterns: list[Any] = []


def django(
    decorate: Callable[[Any], Any] = lambda view: view, middleware: tuple[str, ...] = (), **settings: Any
) -> Any:
    """Make the service with Django, and decorate its view; `settings` are added to those of a bare project."""
    configure_django(middleware, **settings)
    response = import_module("django.http").JsonResponse

    def ping(request: object) -> Any:
        return response(MESSAGE)

    urlpatterns[:] = [import_module("django.urls").path("ping", decorate(ping))]
    return import_module("django.core.wsgi").get_wsgi_application()


def configure_django(middleware: tuple[str, ...], **settings: Any) -> None:
    """Configure Django for one application of this module."""
    import_module("django.conf").settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="a text for benchmarks",  # noqa: S106
        ROOT_URLCONF="http_apps",
        MIDDLEWARE=[*middleware],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", *settings.pop("INSTALLED_APPS", ())],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        **settings,
    )
    import_module("django").setup()


def django_behind_middleware() -> Any:
    """Put the Django service behind the middleware."""
    return django(middleware=(DJANGO_LIMIT,), RATELAB={"RATE": UNREACHED})


def startproject() -> Any:
    """Make the Django service with the middleware of a new project."""
    return django(middleware=(*STARTPROJECT,))


def startproject_behind_middleware() -> Any:
    """Put the service of a new project behind the middleware."""
    return django(middleware=(DJANGO_LIMIT, *STARTPROJECT), RATELAB={"RATE": UNREACHED})


def django_decorated() -> Any:
    """Limit the Django view."""
    return django(lambda view: import_module("ratelab.django").ratelimit(UNREACHED)(view))


def rest(create_throttle: Callable[[], Any] | None = None, **settings: Any) -> Any:
    """Make the service with the Django REST framework, whose view may have a throttle."""
    configure_django((), INSTALLED_APPS=["rest_framework"], **settings)
    views, response = import_module("rest_framework.views"), import_module("rest_framework.response").Response
    renderer = import_module("rest_framework.renderers").JSONRenderer

    class Ping(views.APIView):  # type: ignore[misc, name-defined]
        authentication_classes = ()
        permission_classes = ()
        renderer_classes = (renderer,)
        throttle_classes = () if create_throttle is None else (create_throttle(),)

        def get(self, request: object) -> Any:
            return response(MESSAGE)

    urlpatterns[:] = [import_module("django.urls").path("ping", Ping.as_view())]
    return import_module("django.core.wsgi").get_wsgi_application()


def rest_limited() -> Any:
    """Limit the REST view by a throttle."""

    def create_throttle() -> Any:
        throttle = import_module("ratelab.django.rest").RateThrottle
        return type("Throttle", (throttle,), {"rate": UNREACHED})

    return rest(create_throttle)
