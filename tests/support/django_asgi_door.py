"""The Django middleware as a door, in a project that ASGI serves."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import asgi
import django_project
from django.core.handlers.asgi import ASGIHandler
from django_door import on_denied
from door_conformance import Client, Door, Reply, Request


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application."""
    django_project.configure(LIMITER=limiter, **{name.upper(): value for name, value in arguments.items()})
    app = ASGIHandler()
    return lambda request: asyncio.run(send(app, request))


async def send(app: Any, request: Request) -> Reply:
    scope = asgi.scope_of(request.peer, request.headers, request.method, request.root + request.path)
    scope["root_path"] = request.root
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "StreamingHttpResponse must consume")  # by FileResponse of Django itself
        status, fields, body = await asgi.request(app, scope)
    return Reply(status, [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in fields], body)


DOOR = Door(serve, on_denied)
