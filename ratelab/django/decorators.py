"""Rate limits for views of Django."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from threading import Lock
from typing import Any, TypedDict, TypeVar, Unpack
from weakref import WeakSet

from asgiref.sync import iscoroutinefunction

from ratelab.algorithms import Policy
from ratelab.django.door import Door
from ratelab.django.settings import LIMITS, NAMES, Place, check_limit, check_names, create_policies, share_options
from ratelab.errors import InputError, short_repr
from ratelab.http.policy_rules import AnyLimiter
from ratelab.http.scope_functions import check_no_view

View = TypeVar("View", bound=Callable[..., Any])

doors: WeakSet[Door] = WeakSet()
"""The doors of decorated views, for the system checks."""


class ViewOptions(TypedDict, total=False):
    """Options of a limit of views; see the page `django` of the manual."""

    rate: str
    policies: Any
    file: str
    limiter: Any
    key: Any
    burst: int | None
    algorithm: str | None
    store: str | None
    on_store_error: str
    deadline: float
    name: str
    policy: str
    cost: Any
    costs: Any
    exempt: Any
    charge: Any
    on_denied: Any
    account: Any
    plan: Any
    plans: Any
    default_plan: str
    on_plan_error: str
    plan_timeout: float
    overrides: Any
    legacy: str
    max_delay: float
    max_keys: int
    trusted_proxies: Any
    trusted_hops: int
    ipv6_prefix: int
    secret: str


def ratelimit(
    *limits: str | Policy | AnyLimiter | Callable[[Any], AnyLimiter], **options: Unpack[ViewOptions]
) -> Callable[[View], View]:
    """Limit the requests of each client to a view: `@ratelimit("5/minute")`.

    `limits` are rates, policies, which are enforced together, a limiter, or a function of the request that returns
    one. Each view has its own quota; give a limiter to several views to share one. The options are those of the
    setting `RATELAB`, in lower case, of which `rate`, `policies`, `file` and `limiter` replace `limits`; the client,
    the store and some others are by default those of the setting.

    The decorator is for functions, coroutine functions, classes and their methods, also through `method_decorator`.
    `request.ratelimit` is the `Decision` on a request, None if it is exempt. A denied request gets the same response as
    from `RateLimitMiddleware`.

    Raise `InputError` for an invalid limit, or an unknown option.
    """
    return _ViewLimit(limits, dict(options)).decorate


class _ViewLimit:
    """A limit of views, with a quota for each."""

    def __init__(self, limits: tuple[Any, ...], options: dict[str, Any]) -> None:
        check_names(options, [name.lower() for name in NAMES], "option of ratelimit")
        named = {name.upper(): value for name, value in options.items()}
        check_no_view(limits, "write @ratelimit('5/minute') above a view")
        if limits and (twice := named.keys() & LIMITS):
            raise InputError(f"ratelimit needs one limit, got {short_repr(limits[0])} and {min(twice).lower()}")
        self._options = named if named.keys() & LIMITS else named | _name_limits(limits)
        check_limit(self._options)
        if self._options.keys() & {"RATE", "POLICIES"}:
            create_policies(self._options)
        self._doors: dict[object, Door] = {}
        self._lock = Lock()

    def decorate(self, view: View) -> View:
        """Return the view behind the limit; a class is changed."""
        if isinstance(view, type):
            if not callable(getattr(view, "dispatch", None)):
                raise InputError(f"ratelimit needs a view with dispatch(), got {short_repr(view)}")
            view.dispatch = self._wrap(view.dispatch)  # type: ignore[attr-defined]
            return view
        if not callable(view):
            raise InputError(f"ratelimit needs a view, got {short_repr(view)}: write @ratelimit('5/minute') above it")
        return self._wrap(view)  # type: ignore[return-value]

    def _wrap(self, view: Callable[..., Any]) -> Callable[..., Any]:
        owner = getattr(view.func, "__self__", None) if isinstance(view, partial) else None  # of `method_decorator`
        door = self._find_door(view, owner)

        if iscoroutinefunction(view):

            @wraps(view)
            async def limited_view(first: Any, *args: Any, **kwargs: Any) -> Any:
                if hasattr(first, "META"):
                    return await door.pass_on_awaiting(first, view, first, *args, **kwargs)
                return await self._find_door(view, first).pass_on_awaiting(args[0], view, first, *args, **kwargs)

        else:
            pass_on = door.pass_on_awaiting if _is_async(owner) else door.pass_on

            @wraps(view)
            def limited_view(first: Any, *args: Any, **kwargs: Any) -> Any:
                if hasattr(first, "META"):
                    return pass_on(first, view, first, *args, **kwargs)
                found = self._find_door(view, first)  # of a method: the request follows its object
                pass_on_method = found.pass_on_awaiting if _is_async(first) else found.pass_on
                return pass_on_method(args[0], view, first, *args, **kwargs)

        return limited_view

    def _find_door(self, view: Callable[..., Any], owner: object) -> Door:
        """Return the door of a function, or of the method of an object, which is that of its class."""
        key: object = view if owner is None else (type(owner), view.__name__)
        door = self._doors.get(key)
        if door is None:
            with self._lock:
                door = self._doors.setdefault(key, Door(self._collect, _find_place(view, owner)))
                doors.add(door)
        return door

    def _collect(self) -> dict[str, Any]:
        return share_options(self._options)


def _name_limits(limits: tuple[Any, ...]) -> dict[str, Any]:
    """Return limits as options."""
    if limits and all(isinstance(limit, str | Policy | Mapping) for limit in limits):
        return {"RATE": limits[0]} if len(limits) == 1 and isinstance(limits[0], str) else {"POLICIES": limits}
    if len(limits) != 1:
        raise InputError(f"ratelimit needs rates, policies or one limiter, got {short_repr(limits)}")
    return {"POLICIES" if isinstance(limits[0], list | tuple) else "LIMITER": limits[0]}


def _is_async(owner: object) -> bool:
    return owner is not None and bool(getattr(owner, "view_is_async", False))


def _find_place(view: Callable[..., Any], owner: object) -> Place:
    """Return the place of a view, in ASCII: its module and its name."""
    kind = getattr(view, "view_class", view) if owner is None else type(owner)
    if not hasattr(kind, "__qualname__"):  # an object that can be called, such as a partial
        kind = getattr(kind, "func", type(kind))
    name = getattr(view, "__name__", "")
    method = "" if owner is None or name == "dispatch" else f".{name}"
    names = f"{kind.__module__}.{kind.__qualname__}{method}", f"{kind.__name__}{method}"
    path, label = (name.encode("ascii", "backslashreplace").decode() for name in names)
    return Place(path, label, f"ratelimit of {path}")
