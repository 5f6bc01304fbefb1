import asyncio
import time

from fastapi_limitex import rate, strategies
from fastapi_limitex.backends.memory import MemoryStorage

limiter, item = strategies.create_strategy("moving_window", MemoryStorage()), rate.parse_many("2/2 seconds")[0]
print([asyncio.run(limiter.hit(item, "alice")).allowed for _ in range(3)])
real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
print("limit 2 in 2 s; after 5 s:", time.sleep(5) or asyncio.run(limiter.hit(item, "alice")).allowed)
