import time

from django.conf import settings
from rest_framework import throttling

settings.configure(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {}})
throttle = type("Brief", (throttling.SimpleRateThrottle,), {"rate": "2/sec", "get_cache_key": lambda self, r, v: r})
print([throttle().allow_request("alice", None) for _ in range(3)])
throttle.timer = lambda self: time.time() - 3600  # the clock of the limiter is set back by an hour
print("limit 2 a second; after 3 s:", time.sleep(3) or throttle().allow_request("alice", None))
