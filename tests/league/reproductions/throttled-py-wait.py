import time

from throttled import Throttled, per_hour

throttle = Throttled(using="token_bucket", quota=per_hour(720, burst=1))  # one token every 5 s
throttle.limit("alice"), time.sleep(4)
denied = throttle.limit("alice").state.retry_after
start = time.monotonic()
while throttle.limit("alice").limited:
    time.sleep(0.01)
print(f"announced after 4 s: {denied} s; needed: {time.monotonic() - start:.2f} s")
