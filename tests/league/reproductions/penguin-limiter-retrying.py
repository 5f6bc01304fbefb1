import time

from penguin_limiter.algorithms.sliding_window import SlidingWindow
from penguin_limiter.storage.memory import MemoryStorage

limiter = SlidingWindow(MemoryStorage(), limit=5, window=3)
start = time.monotonic()
results = [(limiter.is_allowed("alice").allowed, time.sleep(0.5))[0] for _ in range(40)]
print(f"limit 5 in 3 s; {sum(results)} of 40 admitted in {time.monotonic() - start:.0f} s, the last at hit",
      max(n + 1 for n, allowed in enumerate(results) if allowed))
