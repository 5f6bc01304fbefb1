"""Limiters of fastapi-advanced-rate-limiter."""

from adapting import bounded, bucket_bound, log_bound, window_bound
from fastapi_advanced_rate_limiter import (
    FixedWindowRateLimiter,
    LeakyBucketLimiter,
    SlidingWindowLogRateLimiter,
    SlidingWindowRateLimiter,
    TokenBucketLimiter,
)


def _hit(limiter):
    def hit(key):
        if limiter.allow_request(key):
            return True, None
        return False, limiter.get_wait_time(key) if hasattr(limiter, "get_wait_time") else None

    return hit


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    return _hit(TokenBucketLimiter(burst, limit / period))


@bounded(bucket_bound)
def leaky_bucket(limit, period, burst):
    return _hit(LeakyBucketLimiter(burst, limit / period))


@bounded(window_bound)
def fixed_window(limit, period, burst):
    return _hit(FixedWindowRateLimiter(limit, 1 / period))


@bounded(window_bound)
def sliding_window(limit, period, burst):
    return _hit(SlidingWindowRateLimiter(limit, 1 / period))


@bounded(log_bound)
def sliding_log(limit, period, burst):
    return _hit(SlidingWindowLogRateLimiter(limit, 1 / period))
