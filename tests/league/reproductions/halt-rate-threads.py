import sys
from concurrent.futures import ThreadPoolExecutor

from halt import Algorithm, InMemoryStore, Policy, RateLimiter

sys.setswitchinterval(1e-6)
policy = Policy(name="p", limit=10, window=3600, algorithm=Algorithm.TOKEN_BUCKET, key_extractor=str)
limiter = RateLimiter(store=InMemoryStore(), policy=policy)
with ThreadPoolExecutor(8) as pool:
    admitted = [sum(pool.map(lambda _, n=n: limiter.check(str(n)).allowed, range(40))) for n in range(2000)]
print("limit 10; admitted to the worst of 2,000 clients:", max(admitted))
