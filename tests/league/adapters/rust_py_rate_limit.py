"""Algorithms of rust-py-rate-limit."""

from adapting import bounded, window_bound
from rust_py_rate_limit import RateLimiter


def _hit(limiter):
    def hit(key):
        result = limiter.check(key)
        return result["allowed"], None if result["allowed"] else result["retry_after_seconds"]

    return hit


@bounded(window_bound)
def fixed(limit, period, burst):
    return _hit(RateLimiter(limit=limit, window_seconds=int(period)))


@bounded(window_bound)
def sliding(limit, period, burst):
    return _hit(RateLimiter(limit=limit, window_seconds=int(period), algorithm="sliding"))
