import sys
import time

from halt import Algorithm, InMemoryStore, Policy, RateLimiter

policy = Policy(name="p", limit=5, window=1, algorithm=Algorithm.TOKEN_BUCKET, key_extractor=str)
limiter = RateLimiter(store=InMemoryStore(), policy=policy)
before = sys.getallocatedblocks()
allowed = sum([limiter.check(f"client {number}").allowed for number in range(200_000)])
time.sleep(5)  # the limit is 5 a second, so the state of all clients is worthless now
allowed += sum([limiter.check(f"client {number}").allowed for number in range(200_000, 210_000)])
print(f"{sys.getallocatedblocks() - before:,} blocks of memory held for 200,000 idle clients")
