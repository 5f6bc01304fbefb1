"""Algorithms of fluxrate."""

from adapting import bounded, bucket_bound, log_bound, window_bound
from fluxrate import RateLimiter


def _hit(limit, period, burst, algorithm):
    limiter = RateLimiter(limit, period, algorithm=algorithm, burst=burst, key_func=lambda key: key)

    def hit(key):
        if limiter.allow(key):
            return True, None
        return False, limiter.retry_after(key)

    return hit


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    return _hit(limit, period, burst, "token_bucket")


@bounded(bucket_bound)
def leaky_bucket(limit, period, burst):
    return _hit(limit, period, burst, "leaky_bucket")


@bounded(log_bound)
def sliding_window(limit, period, burst):
    return _hit(limit, period, burst, "sliding_window")


@bounded(window_bound)
def fixed_window(limit, period, burst):
    return _hit(limit, period, burst, "fixed_window")
