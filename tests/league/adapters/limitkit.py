"""Algorithms of limitkit."""

from adapting import bounded, bucket_bound, log_bound, on_store, window_bound
from limitkit import FixedWindow, LeakyBucket, SlidingWindow, TokenBucket


def _variant(make, bound):
    def hit_of(limiter):
        return lambda key: (limiter.allow(key), None)

    @bounded(bound)
    def memory(limit, period, burst):
        return hit_of(make(limit, period, burst, None))

    @on_store(bound)
    def redis(url, limit, period, burst):
        return hit_of(make(limit, period, burst, url))

    return memory, redis


token_bucket, token_bucket_redis = _variant(
    lambda limit, period, burst, url: TokenBucket(burst, limit / period, redis_url=url), bucket_bound
)
leaky_bucket, leaky_bucket_redis = _variant(
    lambda limit, period, burst, url: LeakyBucket(burst, limit / period, redis_url=url), bucket_bound
)
sliding_window, sliding_window_redis = _variant(
    lambda limit, period, burst, url: SlidingWindow(limit, period, redis_url=url), log_bound
)
fixed_window, fixed_window_redis = _variant(
    lambda limit, period, burst, url: FixedWindow(limit, period, redis_url=url), window_bound
)
