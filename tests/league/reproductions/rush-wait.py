import time
from datetime import timedelta

from rush import quota, throttle
from rush.limiters.gcra import GenericCellRatelimiter
from rush.stores.dictionary import DictionaryStore

limiter = throttle.Throttle(quota.Quota(timedelta(seconds=20), 5), GenericCellRatelimiter(DictionaryStore()))
wait, start = [limiter.check("alice", 1) for _ in range(5)][-1].retry_after.total_seconds(), time.monotonic()
while limiter.check("alice", 1).limited:
    time.sleep(0.01)
print(f"announced: {wait:.2f} s; needed: {time.monotonic() - start:.2f} s")
