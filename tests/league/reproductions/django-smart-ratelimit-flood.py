import django.conf

django.conf.settings.configure(RATELIMIT_BACKEND="memory", ALLOWED_HOSTS=["*"])
from django import http, test
from django_smart_ratelimit import ratelimit

view = ratelimit(key="ip", rate="3/h")(lambda request: http.HttpResponse())
send = lambda address: view(test.RequestFactory().get("/", REMOTE_ADDR=address)).status_code
print([send("10.0.0.1") for _ in range(4)], len([send(f"11.0.{n // 250}.{n % 250}") for n in range(20_000)]))
print("after 20,000 other clients:", [send("10.0.0.1") for _ in range(4)])
