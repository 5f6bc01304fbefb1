import time

from token_throttler import TokenBucket, TokenThrottler
from token_throttler.storage import RuntimeStorage

throttler = TokenThrottler(1, RuntimeStorage())
throttler.add_bucket("alice", TokenBucket(replenish_time=5, max_tokens=1))
throttler.consume("alice"), time.sleep(0.7), throttler.consume("alice")
wait = throttler.wait_time("alice")
print(f"after the announced {wait} s:", time.sleep(wait) or throttler.consume("alice"))
