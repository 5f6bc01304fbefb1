"""Rate limiting for ASGI applications: the middleware, client identity, and the /ping service."""

from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware

__all__ = ["Identity", "RateLimitMiddleware"]
