import time
from datetime import timedelta

from rush import quota, throttle
from rush.limiters.periodic import PeriodicLimiter
from rush.stores.dictionary import DictionaryStore

limiter = throttle.Throttle(quota.Quota(timedelta(seconds=1), 5), PeriodicLimiter(store := DictionaryStore()))
for number in range(20_000):
    limiter.check(f"client {number}", 1)
time.sleep(5)  # the limit is 5 a second, so the state of all clients is worthless now
print("allowed again:", not limiter.check("alice", 1).limited, f"; {len(store.store):,} clients are held")
