"""Requests and responses of Django as a gate needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse
from django.http.response import ResponseHeaders
from django.utils.functional import LazyObject

from ratelab.http.asgi import Scope
from ratelab.http.doors import merge_fields
from ratelab.http.environ import EnvironScope
from ratelab.http.responses import DENIED, TextDenial

REQUEST = "django.request"
"""The entry of a scope that holds the request of Django."""

_NAMES = {
    "ratelimit": "RateLimit",
    "ratelimit-policy": "RateLimit-Policy",
    "x-ratelimit-limit": "X-RateLimit-Limit",
    "x-ratelimit-remaining": "X-RateLimit-Remaining",
    "x-ratelimit-reset": "X-RateLimit-Reset",
}
_LISTS = ("ratelimit", "ratelimit-policy")
_LEGACY = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_STATUS_BY_ERROR = ((Http404, 404), (PermissionDenied, 403), ((SuspiciousOperation, BadRequest), 400))


def create_scope(request: Any) -> Scope:
    """Return the scope of a request, with the path that Django resolves."""
    plain = getattr(request, "_request", request)  # of Django REST framework
    scope: Scope
    if hasattr(plain, "environ"):
        scope = EnvironScope(plain.environ)
    elif hasattr(plain, "scope"):
        scope = {**plain.scope, "client": _find_peer(plain)}
    else:
        scope = EnvironScope({"REQUEST_METHOD": plain.method or "GET", **plain.META})
    scope["path"], scope["root_path"], scope[REQUEST] = plain.path_info or "/", "", request
    return scope


def _find_peer(request: Any) -> tuple[str, int | None] | None:
    """Return the peer of a request that came by ASGI; as under WSGI, middleware may change its `REMOTE_ADDR`."""
    host, peer = request.META.get("REMOTE_ADDR"), request.scope.get("client")
    return peer if not host or (peer and peer[0] == host) else (host, None)


def is_asgi(request: Any) -> bool:
    """Return whether a request came by ASGI, so that it may run in an event loop."""
    return hasattr(getattr(request, "_request", request), "scope")


async def load_user(request: Any) -> None:
    """Load the user of a request, so that functions may read it in an event loop."""
    user = getattr(request, "user", None)
    if isinstance(user, LazyObject):
        await sync_to_async(bool)(user)


def find_status(error: Exception) -> int:
    """Return the status of the response to an exception that a view has raised."""
    return next((status for kinds, status in _STATUS_BY_ERROR if isinstance(error, kinds)), 500)


def note_denial(request: Any) -> None:
    """Note for outer limits, also those of middleware around the application, that a limit has denied a request."""
    request.META[DENIED] = True
    if is_asgi(request):
        getattr(request, "_request", request).scope[DENIED] = True


def is_denied(request: Any) -> bool:
    """Return whether an inner limit has denied a request."""
    return DENIED in request.META


# --- responses


def keep_response(hook: Any) -> Any:
    """Return `on_denied` for a gate; it keeps a response of Django for `create_response`."""
    if not callable(hook):
        return hook

    def answer(request: Any, decision: Any) -> Any:
        response = hook(request, decision)
        if not isinstance(response, HttpResponse):
            return response
        if callable(getattr(response, "render", None)):
            response = response.render()
        request.ratelimit_response = response
        return response.status_code, (), response.content

    return answer


def create_response(request: Any, denial: TextDenial) -> Any:
    """Return the response to a request that does not reach the view."""
    status, fields, body = denial
    response = request.__dict__.pop("ratelimit_response", None)
    if response is None:
        response = HttpResponse(body, status=status)
        del response.headers["Content-Type"]
    for name, value in fields:
        response.headers.setdefault(_NAMES.get(name) or name.title(), value)
    return response


def join_fields(headers: Any, fields: Sequence[tuple[str, str]]) -> None:
    """Add the fields of a limit to the headers of a response; those of several limits are joined."""
    if not headers:  # of a view of Django REST framework, usually
        headers.update([(_NAMES[name], value) for name, value in fields])
        return
    if type(headers) is ResponseHeaders and _KNOWS_STORE and len(fields) == len(_LISTS):
        store = headers._store  # to set an item through `headers` takes as long as half of the rest
        for name, value in fields:
            other = store.get(name)
            store[name] = _NAMES[name], value if other is None else f"{other[1]}, {value}"
        return
    if len(fields) > len(_LISTS) and (present := [(name, headers[name]) for name in _LEGACY if name in headers]):
        added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        fields = [*dict(merge_fields(present, added)).items()]  # one set of X-RateLimit-* is left
    for name, value in fields:
        other = headers.get(_NAMES[name]) if name in _LISTS else None
        headers[_NAMES[name]] = value if other is None else f"{other}, {value}"


def knows_store() -> bool:
    """Return whether the headers of this version of Django are kept as `join_fields` sets them."""
    headers = ResponseHeaders({})
    headers["RateLimit"] = "text"
    return getattr(headers, "_store", None) == {"ratelimit": ("RateLimit", "text")}


_KNOWS_STORE = knows_store()
