"""django-ratelimit on Redis as Django's cache: its documentation rules out the local-memory cache."""

from adapting import on_store, window_bound
from django_settings import configure, redis_cache, use_server


@on_store(window_bound)
def redis(url, limit, period, burst):
    configure(redis_cache(url))
    use_server(url)
    from django.core.cache import cache
    from django.test import RequestFactory
    from django_ratelimit.core import get_usage

    cache.clear()
    requests = RequestFactory()

    def hit(key):
        request = requests.get("/", HTTP_X_CLIENT=key)
        usage = get_usage(
            request, group="league", key="header:x-client", rate=f"{limit}/{int(period)}s", increment=True
        )
        return not usage["should_limit"], usage["time_left"] if usage["should_limit"] else None

    return hit
