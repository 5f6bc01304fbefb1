"""An application for real servers: it answers with its client and path, behind limits that the environment sets."""

from __future__ import annotations

import os

from ratelab import MemoryLimiter, create
from ratelab.http import Identity, RateLimitMiddleware, by_route
from ratelab.http.asgi import Receive, Scope, Send


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200, and both events of the lifespan."""
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


usual = MemoryLimiter(create(os.environ.get("ALGORITHM", "token-bucket"), os.environ.get("RATE", "5/h")))
search = MemoryLimiter(create("token-bucket", "2/h"))
app = RateLimitMiddleware(
    page,
    by_route({"/search": search}, default=usual),
    Identity(trusted_proxies=os.environ.get("TRUSTED", "").split()),
    exempt=by_route({"/healthz": True}, default=False),
)
