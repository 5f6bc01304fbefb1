import sys
from concurrent.futures import ThreadPoolExecutor

from penguin_limiter.algorithms.token_bucket import TokenBucket
from penguin_limiter.storage.memory import MemoryStorage

sys.setswitchinterval(1e-6)
limiter = TokenBucket(MemoryStorage(), 10, 3600)
with ThreadPoolExecutor(8) as pool:
    admitted = [sum(pool.map(lambda _, n=n: limiter.is_allowed(str(n)).allowed, range(40))) for n in range(2000)]
print("limit 10; admitted to the worst of 2,000 clients:", max(admitted))
