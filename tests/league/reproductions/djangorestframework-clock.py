import time

from django.conf import settings

settings.configure(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {}, "UNAUTHENTICATED_USER": None}, SECRET_KEY="x")
from rest_framework import throttling

options = {"timer": lambda self: time.time(), "get_cache_key": lambda self, request, view: request}
throttle = type("Brief", (throttling.SimpleRateThrottle,), {"rate": "2/sec", **options})
allowed = [throttle().allow_request("alice", None) for _ in range(3)]
real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
print(allowed, "limit 2 a second; after 3 s:", time.sleep(3) or throttle().allow_request("alice", None))
