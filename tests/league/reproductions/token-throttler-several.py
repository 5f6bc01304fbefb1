import time

from token_throttler import TokenBucket, TokenThrottler
from token_throttler.storage import RuntimeStorage

throttler = TokenThrottler(1, RuntimeStorage())
throttler.add_bucket("alice", TokenBucket(replenish_time=60, max_tokens=5))
throttler.add_bucket("alice", TokenBucket(replenish_time=2, max_tokens=1))
print([throttler.consume("alice") for _ in range(10)])
print("after 2 s:", time.sleep(2.1) or throttler.consume("alice"))
