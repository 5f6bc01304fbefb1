"""slowapi on a route of a FastAPI application."""

import limits.storage.memory
from adapting import asgi_hit, import_pydantic_v1, window_bound, without_threads
from fastapi import FastAPI, Request
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address
from starlette.responses import PlainTextResponse

without_threads(limits.storage.memory)

import_pydantic_v1()


def _hit(limits):
    limiter = Limiter(key_func=get_remote_address, headers_enabled=True)
    app = FastAPI()
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)

    @limiter.limit(";".join(limits))
    async def home(request: Request):
        return PlainTextResponse("ok")

    app.get("/")(home)
    return asgi_hit(app)


def fixed_window(limit, period, burst):
    return _hit([f"{limit} per {int(period)} second"])


def several(quotas):
    return _hit([f"{limit} per {int(period)} second" for limit, period, _ in quotas])


fixed_window.bound, fixed_window.several = window_bound, several
