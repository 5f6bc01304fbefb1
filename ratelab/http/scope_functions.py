"""Functions of the ASGI scope: checks of those that users pass to the middleware, and a choice by route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import isasyncgenfunction, isawaitable, isclass, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Generic, TypeVar

from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Scope
from ratelab.limiter import Decision
from ratelab.policies.routes import normalize_path, parse_route

T = TypeVar("T")

_PLACES = {
    **dict.fromkeys(("algorithm", "burst"), "give it to Policy.create, and the policy in place of a rate"),
    **dict.fromkeys(("ipv6_prefix", "secret", "trusted_hops", "trusted_proxies"), "give it to Identity, as the key"),
    **dict.fromkeys(("max_keys", "overrides", "plans"), "give it to the limiter, such as MemoryLimiter"),
    **dict.fromkeys(("deadline", "name", "on_store_error", "store"), "give it to the limiter, such as ValkeyLimiter"),
}
"""Where arguments belong that doors do not have."""

# --- checks


def check_function(name: str, function: object) -> None:
    """Raise `InputError` if a call of `function` would return a coroutine or a generator: neither is a value."""
    if is_deferred(function):
        raise InputError(f"{name} must be a plain function, got {short_repr(function)}: it is not awaited")


def check_hook(name: str, hook: object) -> None:
    """Raise `InputError` unless `hook` is None or a plain function."""
    if hook is not None and not callable(hook):
        remedy = ": by_route makes one of routes" if name == "exempt" else ""
        raise InputError(f"{name} must be a function of the request, got {short_repr(hook)}{remedy}")
    check_function(name, hook)


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


def check_cost(value: object) -> int:
    """Return the cost that a function returned; raise `InputError` unless it is a whole number >= 0."""
    if type(value) is not int or value < 0:
        raise invalid_result("cost must be a whole number >= 0", value, "use an int, or 0 for a free request")
    return value


def check_functions(
    limiter: object, key: object, cost: object, hooks: Mapping[str, Callable[..., object] | None]
) -> None:
    """Raise `InputError` for an invalid argument of a door: a cost, a hook, or a function that would be awaited."""
    check_cost_argument("cost", cost)
    for name, hook in hooks.items():
        check_hook(name, hook)
    check_choices(hooks["exempt"], partial(check_bool, "exempt"))
    check_function("limiter", limiter)
    check_function("key", key)


def check_no_view(limits: tuple[Any, ...], remedy: str) -> None:
    """Raise `InputError` if the only limit is a view, as in a decorator without a rate.

    A view is a class, is asynchronous, or cannot be called with a request alone, as a function that chooses a limiter
    is.
    """
    if len(limits) != 1 or not callable(limits[0]) or hasattr(limits[0], "hit"):
        return
    (view,) = limits
    if isclass(view) or is_deferred(view) or not _takes_arguments(view, 1):
        raise InputError(f"a limit needs a rate, got {short_repr(view)}: {remedy}")


def check_app(app: object, count: int, rule: str, remedy: str) -> None:
    """Raise `InputError` by a rule unless `app` may be called with `count` arguments; `remedy` is for another count."""
    if not callable(app):
        raise InputError(f"{rule}, got {short_repr(app)}: pass the application itself")
    if not _takes_arguments(app, count):
        raise InputError(f"{rule}, got {short_repr(app)}: {remedy}")


def _takes_arguments(function: Callable[..., object], count: int) -> bool:
    """Return whether `function` may be called with `count` arguments, as far as its signature is known."""
    try:
        signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature
        return True
    return True


def check_cost_argument(name: str, cost: object) -> None:
    """Raise `InputError` unless `cost` is a whole number >= 0, or a plain function."""
    check_function(name, cost)
    check_choices(cost, check_cost)
    if not callable(cost) and (type(cost) is not int or cost < 0):
        raise InputError(f"{name} must be a whole number >= 0 or a function of the request, got {short_repr(cost)}")


def check_choices(function: object, check: Callable[[Any], object]) -> None:
    """Call `check` with each result that a function of `by_route` can have; do nothing for any other function."""
    if isinstance(function, RouteChoice):
        for value in function.values:
            check(value)


def unknown_argument(name: str, known: Iterable[str]) -> TypeError:
    """Return the error for an argument that no door has."""
    remedy = _PLACES.get(name) or f"choose one of {', '.join(sorted(known))}"
    return TypeError(f"unknown argument {name!r}: {remedy}")


def check_bool(name: str, value: object) -> bool:
    """Return the result of the function `name`; raise `InputError` unless it is True or False."""
    if value is not True and value is not False:
        raise invalid_result(f"{name} must return True or False", value, "convert it with bool()")
    return value


def decision_of(scope: Scope) -> Decision | None:
    """Return the decision on a request, or None if it was not limited; with several limiters, that of the innermost.

    An application may ask for it, for example to show the remaining quota. The request has already been delayed.
    """
    row = scope.get("ratelab")
    return None if row is None else Decision(*row)


MAX_LOGGED_PATH_CHARS = 80


def format_path(scope: Scope) -> str:
    """Format the path of a request for a log: without control characters or its query, which may hold secrets."""
    return ascii(scope["path"][:MAX_LOGGED_PATH_CHARS])[1:-1]


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


class RouteChoice(Generic[T]):
    """Choose by the route of a request, given its scope; `by_route` explains the arguments."""

    def __init__(self, choices: Mapping[str, T], default: T) -> None:
        if not isinstance(choices, Mapping):
            rule = "choices of by_route must be a mapping such as {'/search': 10}"
            raise InputError(f"{rule}, got {short_repr(choices)}")
        self.values = [*choices.values(), default]
        routes = [(parse_route(text), choice) for text, choice in choices.items()]
        self._exact = {(route.method, route.path): choice for route, choice in routes if route.pattern is None}
        self._patterns = [(route.method, route.pattern.fullmatch, choice) for route, choice in routes if route.pattern]
        self._default = default

    def __call__(self, scope: Scope) -> T:
        """Return the choice for a request."""
        path, method = normalize_path(route_path(scope)), scope.get("method", "")
        method = "GET" if method == "HEAD" else method
        for key in ((method, path), ("", path)):
            if key in self._exact:
                return self._exact[key]
        for only_method, matches, choice in self._patterns:
            if only_method in ("", method) and (matches(path) or matches(f"{path}/")):
                return choice
        return self._default


def by_route(choices: Mapping[str, T], default: T) -> Callable[[Scope], T]:
    """Return a function that chooses by the route of a request, for `limiter`, `cost` or `exempt` of a door.

    The keys of `choices` are routes as in Starlette and FastAPI: `/search`, `/items/{id}`, `/files/{name:path}`, or
    with a method, `POST /login`. They are compared with `route_path(scope)`, in which a slash at the end and repeated
    slashes do not matter. Routes without parameters come first, then the others in order.

    Raise `InputError` for an invalid route.
    """
    return RouteChoice(choices, default)


class ScopeEntry:
    """A function of the scope that returns its entry `name`, which a door puts there for each request."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, scope: Scope) -> Any:
        """Return the entry."""
        return scope[self._name]
