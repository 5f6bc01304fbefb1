import sys
import time

from fastapi_advanced_rate_limiter import TokenBucketLimiter

limiter = TokenBucketLimiter(5, 5 / 1)
before = sys.getallocatedblocks()
allowed = sum([limiter.allow_request(f"client {number}") for number in range(200_000)])
time.sleep(5)  # the limit is 5 a second, so the state of all clients is worthless now
allowed += sum([limiter.allow_request(f"client {number}") for number in range(200_000, 210_000)])
print(f"{sys.getallocatedblocks() - before:,} blocks of memory held for 200,000 idle clients")
