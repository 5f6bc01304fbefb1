"""Algorithms of ratelimit-io."""

from adapting import bucket_bound, log_bound, on_store, window_bound
from ratelimit_io import Algorithm, Limit, RateLimiter, RateLimitExceededError


def _variant(algorithm, bound):
    @on_store(bound)
    def redis(url, limit, period, burst):
        from redis import Redis

        limiter = RateLimiter(Redis.from_url(url), limit=Limit(limit, seconds=int(period)), algorithm=algorithm)

        def hit(key):
            try:
                limiter.acquire_sync(key)
            except RateLimitExceededError as error:
                return False, error.retry_after
            return True, None

        return hit

    return redis


fixed_window = _variant(Algorithm.FIXED_WINDOW, window_bound)
sliding_window = _variant(Algorithm.SLIDING_WINDOW, log_bound)
gcra = _variant(Algorithm.GCRA, bucket_bound)
