"""Rate limits for views of Flask."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, cached_property, partial, wraps
from inspect import iscoroutinefunction
from typing import Any, Self, TypeVar, Unpack

from flask import Response, after_this_request, current_app, g, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, TooManyRequests, default_exceptions

from ratelab.algorithms import Policy
from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Scope
from ratelab.http.doors import (
    BlockingGate,
    DoorArguments,
    check_name,
    choose_store,
    create_limiter,
    merge_fields,
    take_store_options,
)
from ratelab.http.environ import ENVIRON, EnvironScope
from ratelab.http.gate import create_from_file
from ratelab.http.headers import decode_fields
from ratelab.http.identity import SECRET, Identity
from ratelab.http.policy_rules import AnyLimiter
from ratelab.http.responses import DENIED, Ruling, TextDenial, was_denied
from ratelab.http.scope_functions import check_hook, check_no_view
from ratelab.limiter import Decision
from ratelab.stores.blocking_resilient import run_now
from ratelab.wsgi import DECISION, decision_of

View = TypeVar("View", bound=Callable[..., Any])

_FLASK_REQUEST = "flask.request"
"""The entry of the scope that the functions of a limit take."""


class RateLimitDenied(TooManyRequests):
    """A request that a limit denies: `@app.errorhandler(429)` may render it.

    `response` is the complete default response, a problem document. Its header fields about the limit are added to the
    response of an error handler, too.
    """

    def __init__(self, decision: Decision, response: Response) -> None:
        wait = response.headers.get("Retry-After", type=int)
        super().__init__(f"Try again in {wait} s.", response, wait)
        self.decision = decision


class limit:  # noqa: N801  (a decorator)
    """Limit the requests of each client to a view: `@limit("5/minute")` below `@app.get("/search")`.

    `limits` are rates such as `5/minute`, which token buckets grant, policies, which are enforced together, a limiter,
    or a function that chooses one. Each view has its own quota; give a limiter to several views to share one. With
    `store`, the quota is kept in the store at that URL, under the name of the view or `name`, for all processes;
    `on_store_error`, `deadline` and `max_keys` are those of a `BlockingResilientLimiter`.

    `check` limits all requests of a blueprint or an application: `blueprint.before_request(limit("100/minute").check)`.

    The other arguments are those of `ratelab.wsgi.RateLimitMiddleware`, whose functions take the request.
    `on_denied(request, decision)` returns anything that a view may return, or None to raise `RateLimitDenied`. A
    request that cannot be decided raises another exception of Werkzeug, such as `ServiceUnavailable`.

    `g.ratelimit` is the `Decision`, None for a request that is not limited. The header fields of limits are added to
    every response, also to errors that the view raises.

    Raise `InputError` for invalid arguments.
    """

    def __init__(
        self,
        *limits: str | Policy | AnyLimiter | Callable[[Any], AnyLimiter],
        name: str | None = None,
        **arguments: Unpack[DoorArguments],
    ) -> None:
        self._options = take_store_options(arguments)
        on_denied = arguments.pop("on_denied", None)
        check_hook("on_denied", on_denied)
        check_no_view(limits, "write @limit('5/minute') above a view")
        key = arguments.get("key", "ip")
        arguments["key"] = _with_secret(key)
        self._limits: Any = limits[0] if len(limits) == 1 else limits
        self._name = name
        self._arguments: Any = arguments
        self._on_denied = on_denied

    @classmethod
    def from_file(
        cls,
        path: str,
        limiter: Callable[..., AnyLimiter] | None = None,
        key: str | Identity | Callable[[Any], str | None] = "ip",
        name: str | None = None,
        **arguments: Any,
    ) -> Self:
        """Limit requests by the policy file at `path`, as `from_file` of `ratelab.http.RateLimitMiddleware` does.

        Without a function `limiter`, the limiter is in the `store`, if one is given, under its `name`. All views of the
        decorator share it.
        """
        create = choose_store(True, name, **take_store_options(arguments))
        created, identity, file = create_from_file(path, create if limiter is None else limiter, _with_secret(key))
        return cls(created, **{**arguments, "key": identity, "file": file})

    def __call__(self, view: View = None) -> View:  # type: ignore[assignment]
        """Return the view behind the limit; its attribute `gate` has the counts."""
        if view is None:
            raise InputError("a limit is for a function, got none: write limit(...).check for before_request")
        if isinstance(view, type) or not callable(view):
            raise InputError(f"a limit is for a function, got {short_repr(view)}: give a class decorators=[limit(...)]")
        gate = self._create_gate(_name_of(view) if self._name is None else self._name)
        is_async = iscoroutinefunction(view)

        @wraps(view)
        def limited_view(*args: Any, **kwargs: Any) -> Any:
            denied = _admit(gate, self._on_denied)
            if denied is not None:
                return denied
            return current_app.ensure_sync(view)(*args, **kwargs) if is_async else view(*args, **kwargs)

        limited_view.gate = gate  # type: ignore[attr-defined]
        return limited_view  # type: ignore[return-value]

    @property
    def __name__(self) -> str:
        """The name for which Flask asks a limit that stands in place of its view: a limit has none."""
        raise AttributeError("a limit is not a view: write @limit('5/minute') with a rate above the view")

    @cached_property
    def check(self) -> Callable[[], ResponseReturnValue | None]:
        """A function for `before_request`, which returns None for a request that is admitted."""
        if self._options.get("store") is not None and self._name is None:
            raise InputError("name must be given with a store, got None: the quota there needs one")
        return partial(_admit, self._create_gate(self._name), self._on_denied)

    def _create_gate(self, name: str | None) -> BlockingGate:
        if self._options.get("store") is None:
            check_name(self._name)
            name = None  # a limit in memory shares its quota with no other
        limiter = create_limiter(self._limits, name=name, blocking=True, **self._options)
        return BlockingGate(limiter, _FLASK_REQUEST, **self._arguments)


def _with_secret(key: str | Identity | Callable[[Any], str | None]) -> Identity:
    """Return the identity of clients by a key."""
    return key if isinstance(key, Identity) else _find_identity(os.environ.get(SECRET)).with_key(key)


@cache
def _find_identity(secret: str | None) -> Identity:
    """Return the identity from which those of limits are derived, so that they share warnings and known addresses."""
    return Identity(secret=secret)


def _name_of(view: Callable[..., Any]) -> str:
    """Return the name of a view for a store, in ASCII; that of a class-based view is only in `__name__`."""
    name = getattr(view, "__name__", type(view).__name__)
    path = getattr(view, "__qualname__", name)
    name = path if path.rpartition(".")[2] == name else name
    return f"{view.__module__}.{name}".encode("ascii", "backslashreplace").decode()


def _admit(
    gate: BlockingGate, on_denied: Callable[[Any, Decision], ResponseReturnValue | None] | None
) -> ResponseReturnValue | None:
    """Decide the current request; return None if it is admitted, and the response of `on_denied` if it is denied.

    Raises `RateLimitDenied`, or another exception for a request that cannot be decided.
    """
    environ = request.environ
    peer, method = environ.get("REMOTE_ADDR", ""), environ.get("REQUEST_METHOD")
    decision, fields, denial, ruled = gate.admit_from(request, _create_scope, peer, method)
    if decision is not None:
        environ[DECISION] = decision
    g.ratelimit = decision_of(environ) if decision is None else decision
    if denial is None and ruled is None:

        def add_fields(response: Response) -> Response:
            added = fields
            if was_denied(environ, response.status_code):
                added = gate.withdraw_now(_create_scope(request))
            for name, value in added:  # one by one: `extend` takes twice as long
                response.headers.add(name, value)
            return response

        after_this_request(add_fields)
        return None
    if denial is None:
        if decision is not None and ruled is not None:
            after_this_request(partial(_complete_admitted, gate, *ruled))
        return None
    environ[DENIED] = True  # the status is that of any error handler
    response = _create_response(denial)
    after_this_request(partial(_complete, response))
    answer = None if decision is None or on_denied is None else on_denied(request, decision)
    if answer is not None:
        return answer
    raise _create_error(response, decision)


def _create_scope(of: Any) -> EnvironScope:
    scope = EnvironScope(of.environ)
    scope[_FLASK_REQUEST] = of
    return scope


def _create_response(denial: TextDenial) -> Response:
    status, fields, body = denial
    return current_app.response_class([body], status, Headers(fields))  # a list keeps Content-Length for HEAD


def _create_error(response: Response, decision: Decision | None) -> HTTPException:
    if response.status_code == TooManyRequests.code and decision is not None:
        return RateLimitDenied(decision, response)
    return default_exceptions[response.status_code](response=response)


# --- functions that are called after a request


def _complete_admitted(gate: BlockingGate, scope: Scope, ruling: Ruling, response: Response) -> Response:
    """Add the fields of an admitted request, and refund it unless it stays charged."""
    fields = ruling.fields
    denied = was_denied(scope[ENVIRON], response.status_code)
    if denied:
        fields = run_now(gate.withdraw(scope, ruling))
    if gate.writes_legacy and any(name in response.headers for name in ("X-RateLimit-Remaining", "X-RateLimit-Limit")):
        response.headers = Headers(merge_fields(response.headers.items(), fields))
    else:
        response.headers.extend(decode_fields(fields))
    if not denied:
        gate.settle_now(scope, ruling, response.status_code)
    return response


def _complete(usual: Response, response: Response) -> Response:
    """Add the fields of the default response that the response lacks, since an error handler may have made it."""
    for name, value in usual.headers.items():
        if name.startswith("ratelimit"):
            if value not in response.headers.getlist(name):
                response.headers.add(name, value)
        elif not name.startswith("content-"):
            response.headers.setdefault(name, value)
    return response
