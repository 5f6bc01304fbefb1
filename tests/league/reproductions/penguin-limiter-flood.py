import sys
import time

from penguin_limiter.algorithms.sliding_window import SlidingWindow
from penguin_limiter.storage.memory import MemoryStorage

limiter = SlidingWindow(MemoryStorage(), 5, 1)
before = sys.getallocatedblocks()
allowed = sum([limiter.is_allowed(f"client {number}").allowed for number in range(200_000)])
time.sleep(5)  # the limit is 5 a second, so the state of all clients is worthless now
allowed += sum([limiter.is_allowed(f"client {number}").allowed for number in range(200_000, 210_000)])
print(f"{sys.getallocatedblocks() - before:,} blocks of memory held for 200,000 idle clients")
