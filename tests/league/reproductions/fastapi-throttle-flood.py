import asyncio
import sys
import time

from fastapi import Request, Response
from fastapi_throttle import RateLimiter
limiter, blocks = RateLimiter(times=5, seconds=1), sys.getallocatedblocks()
hit = lambda n: asyncio.run(limiter(Request({"type": "http", "headers": [], "client": (f"client {n}", 1)}), Response()))
done = [hit(n) for n in range(20_000)], time.sleep(5), [hit(n) for n in range(20_000, 21_000)]
print(f"{sys.getallocatedblocks() - blocks:,} blocks held for 20,000 idle clients; keys: {len(limiter.requests):,}")
