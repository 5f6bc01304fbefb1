"""Strategies of larzlimit."""

from adapting import bounded, bucket_bound, log_bound, window_bound
from larzlimit import RateLimiter


def _hit(limiter):
    def hit(key):
        decision = limiter.hit(key)
        return decision.allowed, None if decision.allowed else decision.retry_after

    return hit


@bounded(log_bound)
def sliding(limit, period, burst):
    return _hit(RateLimiter(limit, period))


@bounded(window_bound)
def fixed(limit, period, burst):
    return _hit(RateLimiter(limit, period, strategy="fixed"))


@bounded(bucket_bound)
def token(limit, period, burst):
    return _hit(RateLimiter(limit, period, strategy="token", capacity=burst))
