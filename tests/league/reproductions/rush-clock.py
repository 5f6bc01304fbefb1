import datetime
import time

from rush import quota, throttle
from rush.limiters.periodic import PeriodicLimiter
from rush.stores.dictionary import DictionaryStore

limiter = throttle.Throttle(quota.Quota(datetime.timedelta(seconds=2), 1), PeriodicLimiter(store := DictionaryStore()))
(
    limiter.check("alice", 1),
    setattr(store, "current_time", lambda: DictionaryStore().current_time() - datetime.timedelta(hours=1)),
)
print(
    "limit 1 in 2 s; after the clock was set back an hour, and 5 s:",
    time.sleep(5) or not limiter.check("alice", 1).limited,
)
