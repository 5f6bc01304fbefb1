import time

from django.conf import settings
from django.test import RequestFactory
settings.configure(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
from django_ratelimit.core import get_usage
hit = lambda: get_usage(RequestFactory().get("/"), "g", key="ip", rate="1/5s", increment=True)
denied = hit() and hit()
time.sleep(denied["time_left"])
print(f"after the announced {denied['time_left']} s, denied:", hit()["should_limit"])
