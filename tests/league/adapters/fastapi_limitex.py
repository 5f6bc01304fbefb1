"""Strategies of fastapi-limitex on a route of a FastAPI application."""

from adapting import asgi_hit, bounded, bucket_bound, import_pydantic_v1, log_bound, on_store, window_bound
from fastapi import FastAPI, Request
from fastapi_limitex import Limiter

import_pydantic_v1()


def _hit(rates, **options):
    app = FastAPI()
    limiter = Limiter(**options)
    limiter.attach(app)

    @app.get("/")
    @limiter.limit(";".join(rates))
    async def ping(request: Request) -> dict[str, str]:
        return {"pong": "ok"}

    return asgi_hit(app)


def _variant(strategy, bound):
    @bounded(bound)
    def memory(limit, period, burst):
        return _hit([f"{limit}/{int(period)}seconds"], strategy=strategy)

    @on_store(bound)
    def redis(url, limit, period, burst):
        return _hit([f"{limit}/{int(period)}seconds"], strategy=strategy, storage_uri=url)

    memory.several = lambda quotas: _hit(
        [f"{limit}/{int(period)}seconds" for limit, period, _ in quotas], strategy=strategy
    )
    return memory, redis


fixed_window, fixed_window_redis = _variant("fixed_window", window_bound)
sliding_window, sliding_window_redis = _variant("sliding_window", window_bound)
moving_window, moving_window_redis = _variant("moving_window", log_bound)
token_bucket, token_bucket_redis = _variant("token_bucket", bucket_bound)
