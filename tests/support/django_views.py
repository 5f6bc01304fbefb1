"""Views of Django, and requests to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from django.http import HttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from django_project import override

PEER = "192.0.2.1"
"""A peer that is known from its second request on, since it is not local."""

factory, async_factory = RequestFactory(), AsyncRequestFactory()


class User:
    def __init__(self, pk: int | None) -> None:
        self.pk, self.is_authenticated = pk, pk is not None


def without_options() -> Iterator[None]:
    """Leave the setting `RATELAB` empty during a test, as a fixture."""
    with override():
        yield


def hello(request: Any) -> HttpResponse:
    return HttpResponse("hello")


async def hello_later(request: Any) -> HttpResponse:
    return HttpResponse("hello")


def get(view: Callable[..., Any], user: Any = None, **headers: Any) -> Any:
    request = factory.get("/", **{"REMOTE_ADDR": PEER, **headers})
    request.user = User(None) if user is None else user
    response = view(request)
    return asyncio.run(response) if asyncio.iscoroutine(response) else response


def get_in_loop(view: Callable[..., Any]) -> Any:
    return asyncio.run(view(async_factory.get("/")))


def statuses(view: Callable[..., Any], count: int, *arguments: Any, **headers: Any) -> list[int]:
    return [get(view, *arguments, **headers).status_code for _ in range(count)]
