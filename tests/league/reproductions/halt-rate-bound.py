import time

from halt import InMemoryStore, Policy, RateLimiter

limiter = RateLimiter(InMemoryStore(), Policy(name="p", limit=5, window=10, key_extractor=str))
end, admitted = time.monotonic() + 10, 0
while time.monotonic() < end:  # a denied hit grants the time since the last admission once more
    admitted += limiter.check("alice").allowed
    time.sleep(0.01)
print("5 in 10 s, burst 5: at most 10 in 10 s are its bound, admitted:", admitted)
