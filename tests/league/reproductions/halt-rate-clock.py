import time

from halt import Algorithm, InMemoryStore, Policy, RateLimiter

policy = Policy(name="p", limit=2, window=2, algorithm=Algorithm.TOKEN_BUCKET, key_extractor=str)
limiter = RateLimiter(store=InMemoryStore(), policy=policy)
print("at once:", [limiter.check("alice").allowed for _ in range(3)])
real = time.time
time.time = lambda: real() - 3600  # the clock is set back by an hour
time.sleep(5)
print("limit 2 in 2 s; after 5 s:", limiter.check("alice").allowed)
