import asyncio

from fastapi_limitex import rate, strategies
from fastapi_limitex.backends.memory import MemoryStorage

limiter, item = strategies.create_strategy("fixed_window", MemoryStorage()), rate.parse_many("3/hour")[0]
hit = lambda key: asyncio.run(limiter.hit(item, key)).allowed
print([hit("alice") for _ in range(4)], len([hit(f"client {n}") for n in range(10_000)]), "other clients")
print("alice again:", [hit("alice") for _ in range(4)])
