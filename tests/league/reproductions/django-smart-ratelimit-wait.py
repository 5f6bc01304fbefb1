import time

import django.conf

django.conf.settings.configure(RATELIMIT_BACKEND="memory", ALLOWED_HOSTS=["*"])
from django import http, test
from django_smart_ratelimit import ratelimit
view = ratelimit(key="ip", rate="3/10s")(lambda request: http.HttpResponse())
time.sleep(14 - time.time() % 10)
denied = [view(test.RequestFactory().get("/")) for _ in range(4)][-1]["Retry-After"]
print(f"after the announced {denied} s:", time.sleep(int(denied)) or view(test.RequestFactory().get("/")).status_code)
