"""Rate limiting for ASGI applications: the middleware, client identity, and the /ping service."""

from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.scope_functions import by_route, decision_of, route_path

__all__ = ["Identity", "RateLimitMiddleware", "by_route", "decision_of", "route_path"]
