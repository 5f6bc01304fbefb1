"""Limiters of rush."""

from datetime import timedelta

from adapting import bounded, bucket_bound, window_bound
from rush.limiters.gcra import GenericCellRatelimiter
from rush.limiters.periodic import PeriodicLimiter
from rush.quota import Quota
from rush.stores.dictionary import DictionaryStore
from rush.throttle import Throttle


def _hit(limiter, quota):
    throttle = Throttle(limiter=limiter(DictionaryStore()), rate=quota)

    def hit(key):
        result = throttle.check(key, 1)
        return not result.limited, result.retry_after.total_seconds() if result.limited else None

    return hit


@bounded(bucket_bound)
def gcra(limit, period, burst):
    return _hit(GenericCellRatelimiter, Quota(timedelta(seconds=period), limit))


@bounded(window_bound)
def periodic(limit, period, burst):
    return _hit(PeriodicLimiter, Quota(timedelta(seconds=period), limit))
