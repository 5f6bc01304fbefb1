"""Routes, written as in Starlette and FastAPI."""

from __future__ import annotations

import re
from typing import NamedTuple

from ratelab.errors import InputError, short_repr


class Route(NamedTuple):
    """A pattern of paths, for one method or for all."""

    method: str
    """Empty for all methods; `GET` includes `HEAD`."""
    path: str
    """The text of the route, with a normalized path."""
    pattern: re.Pattern[str] | None
    """None for a route without parameters."""

    def matches(self, method: str, path: str) -> bool:
        """Return whether a request by `method` for `path`, without a query, takes the route."""
        path, method = normalize_path(path), "GET" if method == "HEAD" else method
        if self.method not in ("", method):
            return False
        if self.pattern is None:
            return self.path == path
        return bool(self.pattern.fullmatch(path) or self.pattern.fullmatch(f"{path}/"))


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


def parse_route(text: object) -> Route:
    """Parse a route such as `/search`, `/items/{id}` or `POST /login`; raise `InputError` for other text."""
    match = _ROUTE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"a route must be a path, such as /search or POST /login, got {short_repr(text)}")
    method, path = "GET" if match[1] == "HEAD" else match[1] or "", normalize_path(match[2])
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


def normalize_path(path: str) -> str:
    """Return a path without repeated slashes and without one at its end, since some frameworks ignore them."""
    if "//" in path:
        path = re.sub("/{2,}", "/", path)
    return path.rstrip("/") or "/"
