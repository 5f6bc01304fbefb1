import time

import django.conf

django.conf.settings.configure(RATELIMIT_BACKEND="memory", ALLOWED_HOSTS=["*"])
from django import http, test
from django_smart_ratelimit import ratelimit
view = ratelimit(key="ip", rate="3/2s")(lambda request: http.HttpResponse())
send = lambda: time.sleep(0.4) or view(test.RequestFactory().get("/")).status_code
print("limit 3 in 2 s, one request every 0.4 s:", [send() for _ in range(30)])
