"""An application for real WSGI servers: the pages of the suite of doors, behind limits that the environment sets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import wsgi_door

from ratelab import MemoryLimiter, create
from ratelab.http import Identity, by_route
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.wsgi import RateLimitMiddleware


def site(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Serve the pages, and two more."""
    if environ["PATH_INFO"] in ("/", "/healthz"):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]
    return wsgi_door.site(environ, start_response)


policy = create(os.environ.get("ALGORITHM", "token-bucket"), os.environ.get("RATE", "5/h"))
store = os.environ.get("STORE")
usual = ValkeyLimiter(store, policy, deadline=30) if store else MemoryLimiter(policy)
search = MemoryLimiter(create("token-bucket", "2/h"))
app = RateLimitMiddleware(
    site,
    by_route({"/remaining": search}, default=usual),
    Identity(trusted_proxies=os.environ.get("TRUSTED", "").split()),
    exempt=by_route({"/healthz": True}, default=False),
)
limit = RateLimitMiddleware(site, usual, Identity(trusted_proxies=os.environ.get("TRUSTED", "").split()))
"""The same limit for every path, without functions."""
