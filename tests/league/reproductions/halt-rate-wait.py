import time

from halt import Algorithm, InMemoryStore, Policy, RateLimiter

policy = Policy(name="p", limit=5, window=10, algorithm=Algorithm.SLIDING_WINDOW, key_extractor=str)
limiter = RateLimiter(InMemoryStore(), policy)
denied = [limiter.check("alice") for _ in range(6)][-1]
time.sleep(denied.retry_after)
print(f"after the announced {denied.retry_after} s:", limiter.check("alice"))
