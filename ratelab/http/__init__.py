"""A limiter in front of HTTP: the middleware for any ASGI application, and the service that shows it."""

from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware

__all__ = ["Identity", "RateLimitMiddleware"]
