"""Buckets of pyrate-limiter, one for each key."""

import pyrate_limiter.abstracts.bucket
from adapting import bounded, bucket_bound, log_bound, on_store, per_key, window_bound, without_threads
from pyrate_limiter import (
    Duration,
    FixedWindow,
    InMemoryBucket,
    Limiter,
    Rate,
    RedisBucket,
    RedisStateStore,
    StateBucket,
    TokenBucket,
)

without_threads(pyrate_limiter.abstracts.bucket)


def _rate(limit, period, burst=None):
    return Rate(limit, int(Duration.SECOND * period), burst=burst)


def _hit(make_bucket):
    limiter_of = per_key(make_bucket)

    def hit(key):
        return limiter_of(key).try_acquire(key, blocking=False), None

    return hit


@bounded(log_bound)
def sliding_log(limit, period, burst):
    return _hit(lambda key: Limiter(_rate(limit, period)))


@bounded(window_bound)
def fixed_window(limit, period, burst):
    return _hit(lambda key: Limiter(InMemoryBucket([_rate(limit, period)], algorithm=FixedWindow())))


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    return _hit(lambda key: Limiter(StateBucket([_rate(limit, period, burst)], algorithm=TokenBucket())))


def several(quotas):
    rates = sorted((_rate(limit, period) for limit, period, _ in quotas), key=lambda rate: rate.interval)
    return _hit(lambda key: Limiter(rates))


@on_store(log_bound)
def sliding_log_redis(url, limit, period, burst):
    from redis import Redis

    client = Redis.from_url(url)
    return _hit(lambda key: Limiter(RedisBucket.init([_rate(limit, period)], client, key)))


@on_store(bucket_bound)
def token_bucket_redis(url, limit, period, burst):
    from redis import Redis

    client = Redis.from_url(url)
    rates = [_rate(limit, period, burst)]
    return _hit(lambda key: Limiter(StateBucket(rates, store=RedisStateStore(client, key))))


sliding_log.several = several
