import datetime
import time

import token_throttler
from token_throttler import storage

throttler = token_throttler.TokenThrottler(1, storage.RuntimeStorage())
throttler.add_bucket("alice", bucket := token_throttler.TokenBucket(replenish_time=2, max_tokens=1))
throttler.consume("alice")
bucket.last_replenished += 3600  # as if the clock had been set back by an hour since
print("limit 1 in 2 s; after 5 s:", time.sleep(5) or throttler.consume("alice"))
