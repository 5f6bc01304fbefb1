"""Rate limiting for Django: the middleware, a decorator of views, and throttles of Django REST framework."""

from ratelab.django.decorators import ratelimit
from ratelab.django.door import RateLimitMiddleware

__all__ = ["RateLimitMiddleware", "ratelimit"]
