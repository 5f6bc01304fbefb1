import sys
from concurrent.futures import ThreadPoolExecutor

from limits import RateLimitItemPerHour, storage, strategies

sys.setswitchinterval(1e-6)
limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
with ThreadPoolExecutor(8) as pool:
    admitted = list(pool.map(lambda n: limiter.hit(RateLimitItemPerHour(10), str(n // 40)), range(40_000)))
print("limit 10; admitted to the worst client:", max(sum(admitted[n : n + 40]) for n in range(0, 40_000, 40)))
