"""Algorithms of throttled-py."""

from datetime import timedelta

from adapting import bounded, bucket_bound, on_store, window_bound
from throttled import Throttled, per_duration, store


def _hit(using, backend, limit, period, burst):
    quota = per_duration(timedelta(seconds=period), limit, burst=burst)
    throttle = Throttled(using=using, quota=quota, store=backend)

    def hit(key):
        result = throttle.limit(key)
        return not result.limited, result.state.retry_after if result.limited else None

    return hit


def _variant(using, bound):
    @bounded(bound)
    def memory(limit, period, burst):
        return _hit(using, store.MemoryStore(), limit, period, burst)

    @on_store(bound)
    def redis(url, limit, period, burst):
        return _hit(using, store.RedisStore(server=url), limit, period, burst)

    return memory, redis


token_bucket, token_bucket_redis = _variant("token_bucket", bucket_bound)
leaking_bucket, leaking_bucket_redis = _variant("leaking_bucket", bucket_bound)
gcra, gcra_redis = _variant("gcra", bucket_bound)
fixed_window, fixed_window_redis = _variant("fixed_window", window_bound)
sliding_window, sliding_window_redis = _variant("sliding_window", window_bound)
