import time

from django.conf import settings

settings.configure(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {}, "UNAUTHENTICATED_USER": None}, USE_I18N=False)
from rest_framework import test, throttling, views

options = {"get_cache_key": lambda throttle, request, view: throttle.rate}
rates = [type("Rate", (throttling.SimpleRateThrottle,), {"rate": rate, **options}) for rate in ("5/min", "1/sec")]
view = views.APIView.as_view(throttle_classes=rates)
statuses = [view(test.APIRequestFactory().get("/")).status_code for _ in range(10)]  # 405 is past the throttles
print(statuses, "after 2 s:", time.sleep(2) or view(test.APIRequestFactory().get("/")).status_code)
