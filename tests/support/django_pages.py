"""The pages of a Django project, as functions and as coroutine functions."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from typing import Any

from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from door_conformance import FILE, LATER

LEGACY = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "1"}
TEXT = "text/plain"


def ping(request: Any) -> Any:
    return HttpResponse("pong", content_type=TEXT)


def stream(request: Any) -> Any:
    async def parts() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    return StreamingHttpResponse(parts() if hasattr(request, "scope") else iter(["one", "two"]))


def file(request: Any) -> Any:
    return FileResponse(io.BytesIO(FILE), filename="file.txt", content_type=TEXT)


def refused(request: Any) -> Any:
    return HttpResponse(status=401)


def fail(request: Any) -> Any:
    raise RuntimeError("failed")


def remaining(request: Any) -> Any:
    decision = getattr(request, "ratelimit", None)
    return HttpResponse("none" if decision is None else str(decision.remaining), content_type=TEXT)


class LaterResponse(HttpResponse):  # type: ignore[misc]
    """A response that works on after it was sent."""

    def close(self) -> None:
        super().close()
        LATER.append("later")


def later(request: Any) -> Any:
    return LaterResponse(content_type=TEXT)


def legacy(request: Any) -> Any:
    return HttpResponse(headers=LEGACY)


PAGES = [ping, stream, file, refused, fail, remaining, later, legacy]

urlpatterns = [path(page.__name__, csrf_exempt(page)) for page in PAGES]
