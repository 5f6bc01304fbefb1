from django.conf import settings

settings.configure(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {}, "UNAUTHENTICATED_USER": None}, SECRET_KEY="x")
from rest_framework import throttling

throttle = type("Hourly", (throttling.SimpleRateThrottle,), {"rate": "5/hour", "get_cache_key": lambda self, r, v: r})
allowed = [throttle().allow_request("alice", None) for _ in range(6)]
for number in range(1000):
    throttle().allow_request(f"client {number}", None)
print(allowed, "after 1,000 other clients:", [throttle().allow_request("alice", None) for _ in range(6)])
