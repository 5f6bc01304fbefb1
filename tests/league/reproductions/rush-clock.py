from datetime import timedelta

from rush import quota, throttle
from rush.limiters.periodic import PeriodicLimiter
from rush.stores.dictionary import DictionaryStore

class SetBack(DictionaryStore):  # a clock that is set back by an hour
    def current_time(self, *zone): return super().current_time(*zone) + shift
shift, limiter = timedelta(), throttle.Throttle(quota.Quota(timedelta(seconds=2), 1), PeriodicLimiter(SetBack()))
limiter.check("alice", 1)
shift = timedelta(seconds=5 - 3600)
print("limit 1 in 2 s; 5 s later, with the clock set back an hour:", not limiter.check("alice", 1).limited)
