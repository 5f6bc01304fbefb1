"""Functions of the ASGI scope: checks of those that users pass to the middleware, and a choice by route."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from inspect import isasyncgenfunction, isawaitable, iscoroutinefunction, isgeneratorfunction
from typing import NamedTuple, TypeVar

from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Scope
from ratelab.limiter import Decision

T = TypeVar("T")

# --- checks


def check_function(name: str, function: object) -> None:
    """Raise `InputError` if a call of `function` would return a coroutine or a generator: neither is a value."""
    if is_deferred(function):
        raise InputError(f"{name} must be a plain function, got {short_repr(function)}: it is not awaited")


def is_deferred(function: object) -> bool:
    """Return whether a call of `function`, or of an object's `__call__`, returns a coroutine or a generator."""
    while isinstance(function, partial):
        function = function.func
    candidates = (function, getattr(type(function), "__call__", None))  # noqa: B004  (it is inspected)
    kinds = (iscoroutinefunction, isasyncgenfunction, isgeneratorfunction)
    return any(is_kind(candidate) for candidate in candidates for is_kind in kinds)


def invalid_result(rule: str, value: object, remedy: str) -> InputError:
    """Return the error for a function that returned `value`; close a coroutine, which is never awaited."""
    if isawaitable(value):
        close = getattr(value, "close", None) or getattr(value, "cancel", None)
        if close is not None:
            close()
        remedy = "use a plain function, since it is not awaited"
    return InputError(f"{rule}, got {short_repr(value)}: {remedy}")


def decision_of(scope: Scope) -> Decision | None:
    """Return the decision on a request, or None if it was not limited; with several limiters, that of the innermost.

    An application may ask for it, for example to show the remaining quota. The request has already been delayed.
    """
    row = scope.get("ratelab")
    return None if row is None else Decision(*row)


# --- routes


def route_path(scope: Scope) -> str:
    """Return the path of a request below the application's mount point, which always starts with a slash.

    Servers and frameworks put the prefix of a mount or of `--root-path` in `scope["root_path"]`. Some also leave it in
    `scope["path"]`, and some do not; the result is the same. A newline at the end is removed, because the routes of
    Starlette and FastAPI ignore it: `/search%0A` reaches the route `/search`.
    """
    path: str = scope["path"].removesuffix("\n")
    root = (scope.get("root_path") or "").rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path or "/"


class Route(NamedTuple):
    """A pattern of paths, for one method or for all."""

    method: str
    """Empty for all methods; `GET` includes `HEAD`."""
    path: str
    """The text of the route, with a normalized path."""
    pattern: re.Pattern[str] | None
    """None for a route without parameters."""


def by_route(choices: Mapping[str, T], default: T) -> Callable[[Scope], T]:
    """Return a function that chooses by the route of a request, for `limiter`, `cost` or `exempt` of the middleware.

    The keys of `choices` are routes as in Starlette and FastAPI: `/search`, `/items/{id}`, `/files/{name:path}`, or
    with a method, `POST /login`. They are compared with `route_path(scope)`, in which a slash at the end and repeated
    slashes do not matter. Routes without parameters come first, then the others in order.

    Raise `InputError` for an invalid route.
    """
    routes = [(_parse_route(text), choice) for text, choice in choices.items()]
    exact = {(route.method, route.path): choice for route, choice in routes if route.pattern is None}
    patterns = [(route.method, route.pattern.fullmatch, choice) for route, choice in routes if route.pattern]

    def choose(scope: Scope) -> T:
        path, method = _normalize(route_path(scope)), scope.get("method", "")
        method = "GET" if method == "HEAD" else method
        for key in ((method, path), ("", path)):
            if key in exact:
                return exact[key]
        for only_method, matches, choice in patterns:
            if only_method in ("", method) and (matches(path) or matches(f"{path}/")):
                return choice
        return default

    return choose


_CONVERTORS = {
    "str": "[^/]+",
    "path": ".*",
    "int": "[0-9]+",
    "float": r"[0-9]+(?:\.[0-9]+)?",
    "uuid": "[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}",
}
"""What the parameters of Starlette's routes match, by kind."""

_PATH_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(?::([a-z]+))?\}")
_OTHER_SYNTAX = re.compile(r"[{}<>*]|/:")  # including /static/*, /items/<id> and /items/:id, which would never match
_ROUTE = re.compile(r"(?:([A-Z]+) )?(/[^\s?#]*)")


def _parse_route(text: object) -> Route:
    match = _ROUTE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"a route must be a path, such as /search or POST /login, got {short_repr(text)}")
    method, path = "GET" if match[1] == "HEAD" else match[1] or "", _normalize(match[2])
    literals = _PATH_PARAMETER.split(path)[::2]  # the text between the parameters
    if any(_OTHER_SYNTAX.search(literal) for literal in literals):
        raise InputError(f"a parameter of a route must be {{name}} or {{name:path}}, got {short_repr(text)}")
    kinds = [kind or "str" for kind in _PATH_PARAMETER.findall(path)]
    unknown = [kind for kind in kinds if kind not in _CONVERTORS]
    if unknown:
        raise InputError(f"a parameter must be of {', '.join(_CONVERTORS)}, got {unknown[0]} in {short_repr(text)}")
    if not kinds:
        return Route(method, path, None)
    pieces = zip(literals, [*(_CONVERTORS[kind] for kind in kinds), ""], strict=True)
    return Route(method, path, re.compile("".join(re.escape(literal) + kind for literal, kind in pieces), re.DOTALL))


def _normalize(path: str) -> str:
    """Return a path without repeated slashes and without one at its end, since some frameworks ignore them."""
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
    return path.rstrip("/") or "/"
