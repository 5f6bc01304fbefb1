import sys
from concurrent.futures import ThreadPoolExecutor

from limits import RateLimitItemPerSecond, storage, strategies

sys.setswitchinterval(1e-6)
limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
with ThreadPoolExecutor(8) as pool:
    admitted = [
        sum(pool.map(lambda _, n=n: limiter.hit(RateLimitItemPerSecond(10, 3600), str(n)), range(40)))
        for n in range(2000)
    ]
print("limit 10; admitted to the worst of 2,000 clients:", max(admitted))
