import sys
import time

from fluxrate import RateLimiter

limiter = RateLimiter(5, 1, key_func=str)
before = sys.getallocatedblocks()
allowed = sum([limiter.allow(f"client {number}") for number in range(200_000)])
time.sleep(5)  # the limit is 5 a second, so the state of all clients is worthless now
allowed += sum([limiter.allow(f"client {number}") for number in range(200_000, 210_000)])
print(f"{sys.getallocatedblocks() - before:,} blocks of memory held for 200,000 idle clients")
