import time
from concurrent.futures import ThreadPoolExecutor

from limitkit import SlidingWindow

limiter = SlidingWindow(limit=10, window=60, redis_url="redis://127.0.0.1:6379")
key = f"alice-{time.time()}"
with ThreadPoolExecutor(8) as pool:
    admitted = sum(pool.map(lambda _: limiter.allow(key), range(5000)))
print("10 in 60 s; admitted:", admitted)
