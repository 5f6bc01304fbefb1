import sys
from concurrent.futures import ThreadPoolExecutor

from datetime import timedelta

from rush import quota, throttle
from rush.limiters.periodic import PeriodicLimiter
from rush.stores.dictionary import DictionaryStore

sys.setswitchinterval(1e-6)
limiter = throttle.Throttle(quota.Quota(timedelta(seconds=3600), 10), PeriodicLimiter(DictionaryStore()))
with ThreadPoolExecutor(8) as pool:
    admitted = [sum(pool.map(lambda _, n=n: not limiter.check(str(n), 1).limited, range(40))) for n in range(2000)]
print("limit 10; admitted to the worst of 2,000 clients:", max(admitted))
