import sys
from concurrent.futures import ThreadPoolExecutor

from token_bucket import Limiter, MemoryStorage

sys.setswitchinterval(1e-6)
limiter = Limiter(10 / 3600, 10, MemoryStorage())
with ThreadPoolExecutor(8) as pool:
    admitted = [sum(pool.map(lambda _, n=n: limiter.consume(str(n)), range(40))) for n in range(2000)]
print("limit 10; admitted to the worst of 2,000 clients:", max(admitted))
