"""Throttles of Django REST framework on a view."""

from adapting import answer, bounded, log_bound, on_store
from django_settings import LOCAL_MEMORY, configure, redis_cache, use_server


def _hit(quotas):
    from django.core.cache import cache
    from rest_framework.response import Response
    from rest_framework.test import APIRequestFactory
    from rest_framework.throttling import AnonRateThrottle
    from rest_framework.views import APIView

    def throttle(limit, period):
        class Throttle(AnonRateThrottle):
            rate = "set below"
            scope = f"{limit}-{period}"

            def parse_rate(self, rate):  # periods other than a second, minute, hour and day
                return limit, period

        return Throttle

    class View(APIView):
        authentication_classes = permission_classes = ()
        throttle_classes = tuple(throttle(limit, period) for limit, period, _ in quotas)

        def get(self, request):
            return Response({})

    cache.clear()
    view, requests = View.as_view(), APIRequestFactory()

    def hit(key):
        response = view(requests.get("/", REMOTE_ADDR=key))
        return answer(response.status_code, response.headers)

    return hit


def _several(quotas):
    configure(LOCAL_MEMORY, REST_FRAMEWORK={"UNAUTHENTICATED_USER": None})
    return _hit(quotas)


@bounded(log_bound)
def local_memory(limit, period, burst):
    return _several([(limit, period, burst)])


@on_store(log_bound)
def redis(url, limit, period, burst):
    configure(redis_cache(url), REST_FRAMEWORK={"UNAUTHENTICATED_USER": None})
    use_server(url)
    return _hit([(limit, period, burst)])


local_memory.several = _several
