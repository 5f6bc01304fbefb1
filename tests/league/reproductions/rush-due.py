from datetime import timedelta

from rush.limiters.gcra import GenericCellRatelimiter
from rush.quota import Quota
from rush.stores.dictionary import DictionaryStore
from rush.throttle import Throttle

throttle = Throttle(Quota(timedelta(seconds=60), 5), GenericCellRatelimiter(DictionaryStore()))
print("5 in 60 s:", [not throttle.check("alice", 1).limited for _ in range(6)])
