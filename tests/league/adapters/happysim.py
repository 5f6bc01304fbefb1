"""Rate limiter policies of happysim, given the time of the clock; one for each key."""

import time

from adapting import bounded, bucket_bound, log_bound, per_key, window_bound
from happysimulator import Instant
from happysimulator.components.rate_limiter.policy import FixedWindowPolicy, SlidingWindowPolicy, TokenBucketPolicy


def _hit(make):
    policy_of = per_key(make)

    def hit(key):
        policy, now = policy_of(key), Instant.from_seconds(time.monotonic())
        if policy.try_acquire(now):
            return True, None
        return False, policy.time_until_available(now).to_seconds()

    return hit


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    return _hit(lambda key: TokenBucketPolicy(burst, limit / period))


@bounded(log_bound)
def sliding_window(limit, period, burst):
    return _hit(lambda key: SlidingWindowPolicy(period, limit))


@bounded(window_bound)
def fixed_window(limit, period, burst):
    return _hit(lambda key: FixedWindowPolicy(limit, period))
