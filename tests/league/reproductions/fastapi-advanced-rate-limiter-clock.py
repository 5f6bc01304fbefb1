import time

from fastapi_advanced_rate_limiter import TokenBucketLimiter

limiter = TokenBucketLimiter(2, 2 / 2)
print("at once:", [limiter.allow_request("alice") for _ in range(3)])
real = time.time
time.time = lambda: real() - 3600  # the clock is set back by an hour
time.sleep(5)
print("limit 2 in 2 s; after 5 s:", limiter.allow_request("alice"))
