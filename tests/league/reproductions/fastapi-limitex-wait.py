import asyncio
import time

from fastapi_limitex import rate, strategies
from fastapi_limitex.backends.memory import MemoryStorage

limiter, item = strategies.create_strategy("sliding_window", MemoryStorage()), rate.parse_many("5/10 seconds")[0]
time.sleep(19.5 - time.time() % 10)  # late in a window
results = [asyncio.run(limiter.hit(item, "alice")) for _ in range(6)]
wait = results[-1].stats.retry_after
print(f"after the announced {wait} s:", time.sleep(wait) or asyncio.run(limiter.hit(item, "alice")).allowed)
