import time

import django.conf

django.conf.settings.configure(RATELIMIT_BACKEND="memory", ALLOWED_HOSTS=["*"])
from django import http, test
from django_smart_ratelimit import ratelimit
view = ratelimit(key="ip", rate="1/2s")(lambda request: http.HttpResponse())
print([view(test.RequestFactory().get("/")).status_code for _ in range(2)])
real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
print("limit 1 in 2 s; after 5 s:", time.sleep(5) or view(test.RequestFactory().get("/")).status_code)
