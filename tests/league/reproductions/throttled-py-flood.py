from throttled import Throttled, per_hour

throttle = Throttled(using="gcra", quota=per_hour(5))  # on the default store
print("alice:", [not throttle.limit("alice").limited for _ in range(6)])
for number in range(1100):
    throttle.limit(f"client {number}")
print("alice, after 1,100 other clients:", [not throttle.limit("alice").limited for _ in range(6)])
