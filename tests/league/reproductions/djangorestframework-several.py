import time

from django.conf import settings
from rest_framework import request, test, throttling, views

settings.configure(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {}, "UNAUTHENTICATED_USER": None}, SECRET_KEY="x")
rates = [
    type(r, (throttling.SimpleRateThrottle,), {"rate": r, "get_cache_key": lambda s, *_: s.rate})
    for r in ("5/min", "1/sec")
]
view = views.APIView.as_view(throttle_classes=rates)
send = lambda: view(test.APIRequestFactory().get("/")).status_code  # 405 is past the throttles
print([send() for _ in range(10)], "after 2 s:", time.sleep(2) or send())
