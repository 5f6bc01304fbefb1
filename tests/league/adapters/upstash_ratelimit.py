"""Algorithms of upstash-ratelimit, whose scripts run on a local server in place of Upstash."""

import time

from adapting import bucket_bound, on_store, window_bound
from upstash_ratelimit import FixedWindow, Ratelimit, SlidingWindow, TokenBucket


class LocalServer:
    """The command that a decision needs, sent to a Redis-protocol server.

    The first line of each script is a flag that only Upstash's server knows.
    """

    def __init__(self, url):
        from redis import Redis

        self.client = Redis.from_url(url, decode_responses=True)

    def eval(self, script, keys=None, args=None):
        return self.client.eval(script.partition("\n")[2], len(keys), *keys, *args)


def _variant(make_limiter, bound):
    @on_store(bound)
    def redis(url, limit, period, burst):
        ratelimit = Ratelimit(redis=LocalServer(url), limiter=make_limiter(limit, int(period), burst))

        def hit(key):
            response = ratelimit.limit(key)
            return response.allowed, None if response.allowed else response.reset - time.time()

        return hit

    return redis


fixed_window = _variant(lambda limit, period, burst: FixedWindow(limit, period), window_bound)
sliding_window = _variant(lambda limit, period, burst: SlidingWindow(limit, period), window_bound)
token_bucket = _variant(lambda limit, period, burst: TokenBucket(burst, limit, period), bucket_bound)
