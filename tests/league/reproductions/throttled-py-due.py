import time
from datetime import timedelta

from throttled import Throttled, per_duration

throttle = Throttled(using="token_bucket", quota=per_duration(timedelta(seconds=10), limit=15, burst=3))
results = []
for _ in range(30):  # one request a second, at two thirds of the rate
    results.append(not throttle.limit("alice").limited), time.sleep(1.0)
print(f"15 in 10 s; of 30 requests, one a second, {results.count(False)} were denied")
