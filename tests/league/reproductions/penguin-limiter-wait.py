import time

from penguin_limiter.algorithms.sliding_window import SlidingWindow
from penguin_limiter.storage.memory import MemoryStorage

limiter = SlidingWindow(MemoryStorage(), limit=1, window=3)
limiter.is_allowed("alice"), time.sleep(2)
denied = limiter.is_allowed("alice")
time.sleep(denied.reset_after + 0.01)
print(f"after the announced {denied.reset_after:.2f} s:", limiter.is_allowed("alice").allowed)
