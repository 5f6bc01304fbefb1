import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from rush import quota, throttle
from rush.limiters.periodic import PeriodicLimiter
from rush.stores.dictionary import DictionaryStore
sys.setswitchinterval(1e-6)
limiter = throttle.Throttle(quota.Quota(timedelta(hours=1), 10_000), PeriodicLimiter(DictionaryStore()))
with ThreadPoolExecutor(8) as pool:
    print("admitted:", sum(not result.limited for result in pool.map(lambda n: limiter.check("alice", 1), range(40_000))))
