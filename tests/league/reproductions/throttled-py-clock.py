import time

from throttled import Throttled, per_hour

shift, real = 0, time.time
time.time = lambda: real() - shift
throttle = Throttled(using="sliding_window", quota=per_hour(5))
admitted = 0
for shift in (0, 3600, 7200):  # the clock is set back by an hour, twice
    admitted += sum(not throttle.limit("alice").limited for _ in range(10))
print("limit 5 in an hour; admitted within a second:", admitted)
