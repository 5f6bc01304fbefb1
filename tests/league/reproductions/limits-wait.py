import time

from limits import RateLimitItemPerSecond, storage, strategies

limiter = strategies.FixedWindowRateLimiter(storage.RedisStorage("redis://127.0.0.1:6379"))
item, key = RateLimitItemPerSecond(1, 5), str(time.time())
limiter.hit(item, key), time.sleep(0.6)
wait = limiter.get_window_stats(item, key).reset_time - time.time()
print(f"after the announced {wait:.2f} s:", time.sleep(wait) or limiter.hit(item, key))
