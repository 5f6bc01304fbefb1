import time
from datetime import timedelta

from throttled import Throttled, per_duration

quota = per_duration(timedelta(seconds=10), limit=19, burst=5)
throttle = Throttled(using="token_bucket", quota=quota)
drained = [throttle.limit("alice") for _ in range(6)]
steady = [throttle.limit("alice").limited for _ in range(10) if not time.sleep(1)]
burst = [not throttle.limit("alice").limited for _ in range(4)]
print(f"1.9 a second, burst 5; after 10 s with {steady.count(False)} requests, a burst of 4:", burst)
