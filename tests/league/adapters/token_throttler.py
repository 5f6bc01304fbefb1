"""TokenThrottler of token-throttler."""

from threading import Lock

from adapting import bounded, window_bound
from token_throttler import TokenBucket, TokenThrottler
from token_throttler.storage import RuntimeStorage


def _hit(quotas):
    throttler = TokenThrottler(1, RuntimeStorage())
    known, lock = set(), Lock()

    def hit(key):
        with lock:
            if key not in known:
                known.add(key)
                for limit, period, _ in quotas:
                    throttler.add_bucket(key, TokenBucket(int(period), limit))
        if throttler.consume(key):
            return True, None
        return False, throttler.wait_time(key)

    return hit


@bounded(window_bound)
def runtime(limit, period, burst):
    return _hit([(limit, period, burst)])


runtime.several = _hit
