"""Algorithms of penguin-limiter."""

from adapting import bounded, bucket_bound, log_bound, on_store, window_bound
from penguin_limiter.algorithms.fixed_window import FixedWindow
from penguin_limiter.algorithms.sliding_window import SlidingWindow
from penguin_limiter.algorithms.token_bucket import TokenBucket
from penguin_limiter.storage.memory import MemoryStorage
from penguin_limiter.storage.redis_store import RedisStorage


def _hit(algorithm, storage, limit, period):
    limiter = algorithm(storage, limit, int(period))

    def hit(key):
        result = limiter.is_allowed(key)
        return result.allowed, None if result.allowed else result.reset_after

    return hit


def _variant(algorithm, bound):
    @bounded(bound)
    def memory(limit, period, burst):
        return _hit(algorithm, MemoryStorage(), limit, period)

    @on_store(bound)
    def redis(url, limit, period, burst):
        from redis import Redis

        return _hit(algorithm, RedisStorage(Redis.from_url(url)), limit, period)

    redis.fails_open = True
    return memory, redis


fixed_window, fixed_window_redis = _variant(FixedWindow, window_bound)
sliding_window, sliding_window_redis = _variant(SlidingWindow, log_bound)
token_bucket, token_bucket_redis = _variant(TokenBucket, bucket_bound)
