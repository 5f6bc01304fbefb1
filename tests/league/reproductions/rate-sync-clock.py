import asyncio
import time

from ratesync.engines.memory import MemoryRateLimiter

limiter = MemoryRateLimiter("alice", limit=2, window_seconds=2)
asyncio.run(limiter.initialize())
print([asyncio.run(limiter.try_acquire()) for _ in range(3)])
real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
print("limit 2 in 2 s; after 5 s:", time.sleep(5) or asyncio.run(limiter.try_acquire()))
