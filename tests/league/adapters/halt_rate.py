"""Algorithms of halt-rate."""

from adapting import bounded, bucket_bound, on_store, window_bound
from halt import Algorithm, InMemoryStore, KeyStrategy, Policy, RateLimiter, RedisStore


def _hit(algorithm, store, limit, period, burst):
    policy = Policy(
        name="league",
        limit=limit,
        window=int(period),
        burst=burst,
        algorithm=algorithm,
        key_strategy=KeyStrategy.CUSTOM,
        key_extractor=lambda request: request,
    )
    limiter = RateLimiter(store=store, policy=policy)

    def hit(key):
        decision = limiter.check(key)
        return decision.allowed, None if decision.allowed else decision.retry_after

    return hit


def _variant(algorithm, bound):
    @bounded(bound)
    def memory(limit, period, burst):
        return _hit(algorithm, InMemoryStore(), limit, period, burst)

    @on_store(bound)
    def redis(url, limit, period, burst):
        from redis import Redis

        return _hit(algorithm, RedisStore(client=Redis.from_url(url, socket_timeout=0.2)), limit, period, burst)

    redis.fails_open = True
    return memory, redis


token_bucket, token_bucket_redis = _variant(Algorithm.TOKEN_BUCKET, bucket_bound)
leaky_bucket, leaky_bucket_redis = _variant(Algorithm.LEAKY_BUCKET, bucket_bound)
fixed_window, fixed_window_redis = _variant(Algorithm.FIXED_WINDOW, window_bound)
sliding_window, sliding_window_redis = _variant(Algorithm.SLIDING_WINDOW, window_bound)
