"""Strategies of limits."""

import time

import limits.storage.memory
from adapting import log_bound, on_store, window_bound, without_threads
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

without_threads(limits.storage.memory)


def _hit(strategy, storage, limit, period):
    limiter, item = strategy(storage), RateLimitItemPerSecond(limit, int(period))

    def hit(key):
        if limiter.hit(item, key):
            return True, None
        return False, limiter.get_window_stats(item, key).reset_time - time.time()

    return hit


def _variant(strategy, bound):
    def memory(limit, period, burst):
        return _hit(strategy, MemoryStorage(), limit, period)

    @on_store(bound)
    def redis(url, limit, period, burst):
        return _hit(strategy, storage_from_string(url), limit, period)

    memory.bound = bound
    return memory, redis


fixed_window, fixed_window_redis = _variant(FixedWindowRateLimiter, window_bound)
moving_window, moving_window_redis = _variant(MovingWindowRateLimiter, log_bound)
sliding_window_counter, sliding_window_counter_redis = _variant(SlidingWindowCounterRateLimiter, window_bound)
