"""fastapi-throttle as a dependency of a FastAPI route."""

from adapting import asgi_hit, bounded, import_pydantic_v1, log_bound
from fastapi import Depends, FastAPI
from fastapi_throttle import RateLimiter

import_pydantic_v1()


@bounded(log_bound)
def dependency(limit, period, burst):
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimiter(times=limit, seconds=int(period)))])
    async def index():
        return {"msg": "ok"}

    return asgi_hit(app)
