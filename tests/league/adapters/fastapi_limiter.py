"""fastapi-limiter as a dependency of a FastAPI route, as in its README."""

import pyrate_limiter.abstracts.bucket
from adapting import asgi_hit, import_pydantic_v1, log_bound, without_threads
from fastapi import Depends, FastAPI
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Duration, Limiter, Rate

without_threads(pyrate_limiter.abstracts.bucket)

import_pydantic_v1()


def _hit(rates):
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimiter(limiter=Limiter(rate))) for rate in rates])
    async def index():
        return {"msg": "Hello World"}

    return asgi_hit(app)


def dependency(limit, period, burst):
    return _hit([Rate(limit, int(Duration.SECOND * period))])


def several(quotas):
    return _hit([Rate(limit, int(Duration.SECOND * period)) for limit, period, _ in quotas])


dependency.bound, dependency.several = log_bound, several
