"""Policies of xtr-rate-limiter."""

import time

from adapting import bounded, bucket_bound, window_bound
from xtr_rate_limiter import InMemoryStorage, LimiterConfig, Rate, RateLimiterFactory


def _hit(policy, **options):
    factory = RateLimiterFactory("league", LimiterConfig(policy, **options), InMemoryStorage())

    async def hit(key):
        limit = await factory.create(key).consume()
        if limit.is_accepted():
            return True, None
        return False, limit.retry_after.timestamp() - time.time()

    return hit


@bounded(window_bound)
def fixed_window(limit, period, burst):
    return _hit("fixed_window", limit=limit, interval=f"{int(period)} seconds")


@bounded(window_bound)
def sliding_window(limit, period, burst):
    return _hit("sliding_window", limit=limit, interval=f"{int(period)} seconds")


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    return _hit("token_bucket", limit=burst, rate=Rate(f"{int(period)} seconds", limit))
