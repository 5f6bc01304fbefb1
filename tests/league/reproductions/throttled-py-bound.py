import time

from throttled import Throttled, per_sec, store

server = store.RedisStore(server="redis://127.0.0.1:6379/0")
throttle = Throttled(using="token_bucket", quota=per_sec(100, burst=10), store=server)
end, admitted = time.monotonic() + 3, 0
while time.monotonic() < end:
    admitted += not throttle.limit("alice").limited
print("100 a second, burst 10: at most 310 in 3 s, admitted:", admitted)
