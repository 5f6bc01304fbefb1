import time

from limits import RateLimitItemPerSecond, storage, strategies

limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
print("at once:", [limiter.hit(RateLimitItemPerSecond(2, 2), "alice") for _ in range(3)])
real = time.time
time.time = lambda: real() - 3600  # the clock is set back by an hour
time.sleep(5)
print("limit 2 in 2 s; after 5 s:", limiter.hit(RateLimitItemPerSecond(2, 2), "alice"))
