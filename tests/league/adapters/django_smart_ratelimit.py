"""Decorator of django-smart-ratelimit on a Django view."""

from adapting import answer, bounded, bucket_bound, log_bound, on_store, without_threads
from django_settings import LOCAL_MEMORY, configure


def _hit(limit, period, **options):
    import django_smart_ratelimit.backends.memory
    from django.http import HttpResponse
    from django.test import RequestFactory
    from django_smart_ratelimit import ratelimit

    without_threads(django_smart_ratelimit.backends.memory)

    @ratelimit(key="ip", rate=f"{limit}/{int(period)}s", block=True, **options)
    def view(request):
        return HttpResponse("ok")

    requests = RequestFactory()

    def hit(key):
        response = view(requests.get("/", REMOTE_ADDR=key))
        return answer(response.status_code, response.headers)

    return hit


@bounded(log_bound)
def sliding_window(limit, period, burst):
    configure(LOCAL_MEMORY, RATELIMIT_BACKEND="memory")
    return _hit(limit, period)


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    configure(LOCAL_MEMORY, RATELIMIT_BACKEND="memory")
    return _hit(limit, period, algorithm="token_bucket", algorithm_config={"bucket_size": burst})


@on_store(log_bound)
def sliding_window_redis(url, limit, period, burst):
    configure(LOCAL_MEMORY, RATELIMIT_BACKEND="redis", RATELIMIT_REDIS={"url": url})
    return _hit(limit, period)


@on_store(bucket_bound)
def token_bucket_redis(url, limit, period, burst):
    configure(LOCAL_MEMORY, RATELIMIT_BACKEND="redis", RATELIMIT_REDIS={"url": url})
    return _hit(limit, period, algorithm="token_bucket", algorithm_config={"bucket_size": burst})
