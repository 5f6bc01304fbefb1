"""Decorator of ratelimit, one for each key."""

from adapting import bounded, per_key, window_bound
from ratelimit import RateLimitException, limits


@bounded(window_bound)
def decorator(limit, period, burst):
    call_of = per_key(lambda key: limits(calls=limit, period=period)(lambda: None))

    def hit(key):
        try:
            call_of(key)()
        except RateLimitException as error:
            return False, error.period_remaining
        return True, None

    return hit
