"""Applications of FastAPI with one limited route, and requests to them."""

# without `from __future__ import annotations`: FastAPI would not find the local variables in them
from collections.abc import Callable
from typing import Any

from asgi import call
from fastapi import Depends, FastAPI

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.fastapi import RateLimit


def fixed(burst: int = 1, name: str = "limit") -> MemoryLimiter:
    """Return a limiter whose quota does not return."""
    return MemoryLimiter(Policy.create("token-bucket", f"{burst}/h", name=name), ManualClock())


async def pong() -> str:
    return "pong"


def limited(limit: RateLimit, endpoint: Callable[..., Any] = pong, **options: Any) -> FastAPI:
    """Create an application with one limited route, `/ping`."""
    app = FastAPI(**options)
    app.get("/ping", dependencies=[Depends(limit)])(endpoint)
    return app


def statuses(app: FastAPI, *paths: str, headers: str = "") -> list[int]:
    return [call(app, path=path, headers=headers).status for path in paths]
