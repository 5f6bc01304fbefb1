"""RateLimit of python-redis-rate-limit."""

from adapting import on_store, window_bound
from redis import ConnectionPool
from redis_rate_limit import RateLimiter, TooManyRequests


@on_store(window_bound)
def redis(url, limit, period, burst):
    limiter = RateLimiter("league", limit, int(period), ConnectionPool.from_url(url))

    def hit(key):
        client = limiter.limit(key)
        try:
            client.increment_usage()
        except TooManyRequests:
            return False, client.get_wait_time()
        return True, None

    return hit
