"""The Django middleware as a door, in a project that WSGI serves."""

from __future__ import annotations

from typing import Any

import django_project
import wsgi
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from door_conformance import Client, Door, Reply, Request

from ratelab.limiter import Decision


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application."""
    django_project.configure(LIMITER=limiter, **{name.upper(): value for name, value in arguments.items()})
    app = WSGIHandler()
    return lambda request: send(app, request)


def send(app: Any, request: Request) -> Reply:
    return Reply(*wsgi.call(app, request.peer, request.headers, request.method, request.path, request.root))


def on_denied(request: Any, decision: Decision) -> Any:
    return HttpResponse(b"teapot", "text/plain", 418, headers={"X-Door": "closed"})


DOOR = Door(serve, on_denied, tells_repeated_fields=False, blocks=True)
