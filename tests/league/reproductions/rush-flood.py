import sys
import time

from datetime import timedelta

from rush import quota, throttle
from rush.limiters.periodic import PeriodicLimiter
from rush.stores.dictionary import DictionaryStore

limiter = throttle.Throttle(quota.Quota(timedelta(seconds=1), 5), PeriodicLimiter(DictionaryStore()))
before = sys.getallocatedblocks()
allowed = sum([not limiter.check(f"client {number}", 1).limited for number in range(200_000)])
time.sleep(5)  # the limit is 5 a second, so the state of all clients is worthless now
allowed += sum([not limiter.check(f"client {number}", 1).limited for number in range(200_000, 210_000)])
print(f"{sys.getallocatedblocks() - before:,} blocks of memory held for 200,000 idle clients")
