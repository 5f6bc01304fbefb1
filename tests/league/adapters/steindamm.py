"""Token buckets of steindamm, which wait at most a microsecond here."""

from itertools import count

from adapting import bounded, bucket_bound, on_store
from steindamm import MaxSleepExceededError, SyncTokenBucket

_runs = count()


def _hit(limit, period, burst, **options):
    run = next(_runs)

    def hit(key):
        bucket = SyncTokenBucket.create(
            name=f"{run}:{key}",
            capacity=burst,
            refill_frequency=period / limit,
            refill_amount=1,
            max_sleep=1e-6,
            expiry=int(2 * period),
            **options,
        )
        try:
            with bucket:
                return True, None
        except MaxSleepExceededError:
            return False, None

    return hit


@bounded(bucket_bound)
def local(limit, period, burst):
    return _hit(limit, period, burst)


@on_store(bucket_bound)
def redis(url, limit, period, burst):
    from redis import Redis

    return _hit(limit, period, burst, connection=Redis.from_url(url))
