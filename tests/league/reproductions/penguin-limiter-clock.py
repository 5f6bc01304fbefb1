import time

from penguin_limiter.algorithms.fixed_window import FixedWindow
from penguin_limiter.storage.memory import MemoryStorage

limiter = FixedWindow(MemoryStorage(), 2, 2)
print("at once:", [limiter.is_allowed("alice").allowed for _ in range(3)])
real = time.time
time.time = lambda: real() - 3600  # the clock is set back by an hour
time.sleep(5)
print("limit 2 in 2 s; after 5 s:", limiter.is_allowed("alice").allowed)
