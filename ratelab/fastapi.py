"""Rate limits for FastAPI: a dependency of routes, routers, applications and WebSockets.

Importing this module extends two methods of `FastAPI`, since a dependency sees neither the response nor the schema:
`build_middleware_stack` adds the header fields of limits to every response, and `openapi` documents the status 429.
"""

# without `from __future__ import annotations`: FastAPI needs the classes themselves
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial, wraps
from inspect import Parameter, Signature
from typing import Any, Self, Unpack

from fastapi import FastAPI, HTTPException, params, routing
from fastapi.exception_handlers import http_exception_handler
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ratelab.errors import InputError, StoreError
from ratelab.http.asgi import App, Scope
from ratelab.http.doors import (
    AwaitingGate,
    DoorArguments,
    Limits,
    choose_store,
    create_limiter,
    finish,
    take_store_options,
)
from ratelab.http.gate import create_from_file
from ratelab.http.headers import join_legacy
from ratelab.http.identity import Identity
from ratelab.http.limited_responses import ADMITTED, LimitedResponses, refund_all
from ratelab.http.policy_rules import AnyLimiter
from ratelab.http.responses import DENIED, OPENAPI_DENIAL, Denial, Ruling, create_decision, read_detail
from ratelab.http.scope_functions import ScopeEntry, check_hook, check_no_view, decision_of, invalid_result, is_deferred
from ratelab.limiter import Decision, Row
from ratelab.quota import NS_PER_S

_NO_PEER = ("",)

_CONNECTION = "ratelab.connection"
"""The entry of the scope that functions of a `RateLimit` take."""

_INJECTED = ("key", "cost", "account", "plan")
"""Arguments of `RateLimit` that may be dependencies."""

_POLICY_VIOLATION, _TRY_AGAIN_LATER = 1008, 1013
"""Close codes of WebSockets (https://www.iana.org/assignments/websocket)."""

MAX_CLOSE_REASON_BYTES = 123
"""Length of the reason for which a WebSocket is closed (RFC 6455, section 5.5)."""

_WITHOUT_DEPENDS = "a limit must be a dependency, got a RateLimit alone: write Depends(RateLimit('5/minute'))"

_iterate = getattr(routing, "iter_route_contexts", iter)  # of releases that keep included routers apart


class RateLimitDenied(HTTPException):
    """A request, or a message of a WebSocket, that a `RateLimit` denies.

    The application answers with `response`, a problem document, unless it has a handler for this class, `HTTPException`
    or the status. A WebSocket is refused with that response, or with 403 by servers that can send no other. Once
    accepted, it is closed with code 1013.
    """

    def __init__(self, response: Response, decision: Decision | None) -> None:
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        super().__init__(response.status_code, read_detail(getattr(response, "body", b"")), headers)
        self.response = response
        self.decision = decision
        """None if the limiter made none."""


class RateLimit(AwaitingGate):
    """Limit the requests of each client: `Depends(RateLimit("5/minute"))` on a route, a router or an application.

    `limits` are rates such as `5/minute`, which token buckets grant, policies, which are enforced together, a limiter,
    or a function that chooses one. Routes with the same `RateLimit` share its quota, and charge a request once. With
    `store`, the quota is kept in the store at that URL. All limits there that have the same policies and `name` share
    it, in all processes, and one connection. `on_store_error`, `deadline` and `max_keys` are as for a
    `ResilientLimiter`.

    `key` identifies the client: `ip`, `header:NAME`, an `Identity`, or a function. The other arguments are those of
    `ratelab.http.RateLimitMiddleware`, with functions of the `Request` or `WebSocket`. `on_denied` returns a `Response`
    that gets the header fields, or None. `key`, `cost`, `account` and `plan` may also be dependencies that return the
    value: `key=Depends(user_name)`.

    The dependency returns the `Decision`, or None for an exempt request. `request.state.ratelimit` is the decision of
    the innermost limit that made one. A request with a delay waits. A denied request raises `RateLimitDenied`. A limit
    may also be called: `await limit(websocket)` decides one message, `await limit(websocket, key=name)` if the key is a
    dependency.

    Raise `InputError` for invalid arguments.
    """

    def __init__(
        self,
        *limits: Limits,
        name: str | None = None,
        **arguments: Unpack[DoorArguments],
    ) -> None:
        options = take_store_options(arguments)
        on_denied = arguments.pop("on_denied", None)
        check_hook("on_denied", on_denied)
        check_no_view(limits, "write Depends(RateLimit('5/minute'))")
        given_limits: Any = limits[0] if len(limits) == 1 else limits
        limiter: Any = create_limiter(given_limits, name=name, **options)
        given: dict[str, Any] = {**arguments}
        injected = {each: given[each] for each in _INJECTED if isinstance(given.get(each), params.Depends)}
        given |= {each: ScopeEntry(each) for each in injected}
        costs = given["costs"].values() if isinstance(given.get("costs"), Mapping) else ()
        self._derives_scope = any(map(_takes_connection, (limiter, *given.values(), *costs)))
        super().__init__(limiter, subject=_CONNECTION, **given)
        self._injected = injected.keys()
        self._respond = on_denied
        self.owned_limiter: Any = limiter if options.get("store") is not None else None
        """The limiter in a store that the application closes at its end; None if there is none."""
        uses_peer = self._is_plain and not self._derives_scope and self._keys_by_peer is not None
        self._known_keys: Any = self._keys_by_peer if uses_peer else {}
        """Keys of known peers whose requests need only the decision of the guard."""
        connection = Parameter("connection", Parameter.POSITIONAL_OR_KEYWORD, annotation=HTTPConnection)
        values = [Parameter(each, Parameter.KEYWORD_ONLY, default=value) for each, value in injected.items()]
        self.__signature__ = Signature([connection, *values])  # by which FastAPI passes the arguments of a call

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

        Without a function `limiter`, the limiter is in the `store`, if one is given, under its `name`.
        """
        options = take_store_options(arguments)
        create = choose_store(False, name, **options)
        created, identity, file = create_from_file(path, create if limiter is None else limiter, key)
        limit = cls(created, **{**arguments, "key": identity, "file": file})
        limit.owned_limiter = created if limiter is None and options.get("store") is not None else None
        return limit

    @property
    def dependency(self) -> Any:
        """Raise `InputError`: FastAPI reads this attribute of `Depends`, which is missing around the limit."""
        raise InputError(_WITHOUT_DEPENDS)

    async def __call__(self, connection: HTTPConnection, **values: Any) -> Decision | None:
        """Return the decision on a request or a message; raise `RateLimitDenied` if it is denied."""
        scope = connection.scope
        guard, cost = self._guard, self._cost
        key = self._known_keys.get((scope.get("client") or _NO_PEER)[0])
        if key is None or guard is None or guard.awaited or scope["type"] != "http":
            return await self._decide(connection, values)
        try:
            row: Row = guard.decide(key, cost)
        except StoreError as error:
            return await self._finish(connection, scope, self._rule_undecided(error))
        allowed, remaining, _, reset_after_ns, delay_ns = row
        if not allowed or (delay_ns and cost):
            return await self._finish(connection, scope, self._rule_decided(scope, guard, key, cost, row))
        self.counts.admitted += 1
        decision = scope["ratelab"] = create_decision((*row, None, ()))
        scope.setdefault("state", {})["ratelimit"] = decision
        if ADMITTED in scope:
            seconds = -(-reset_after_ns // NS_PER_S)
            added, admitted, *_ = scope[ADMITTED]
            added.extend(guard.format(remaining, seconds, False))
            admitted.append((self, None, None))
        return decision

    async def _decide(self, connection: HTTPConnection, values: dict[str, Any]) -> Decision | None:
        """Decide on a request or a message, by the arguments and values."""
        if values.keys() != self._injected:
            names = ", ".join(sorted(self._injected)) or "no values"
            raise InputError(f"a call of this limit takes {names}, which are dependencies, got {[*values]}")
        given = connection.scope
        if self._derives_scope or given["type"] != "http":
            given = {"method": "GET", **given, _CONNECTION: connection, **values}
        return await self._finish(connection, given, await self.rule(given))

    async def _finish(self, connection: HTTPConnection, given: Scope, ruling: Ruling) -> Decision | None:
        """Return the decision on an admitted request, after its delay, or raise `RateLimitDenied`."""
        ruling = await self._hold(given, ruling) if ruling.delay_ns else finish(self, given, ruling)
        answer, added, decision, *_ = ruling
        scope = connection.scope
        if decision is not None:
            scope["ratelab"] = decision
        scope.setdefault("state", {})["ratelimit"] = decision or decision_of(scope)  # of an outer limit
        received: Any = scope.get(ADMITTED) or ([], [], set(), [])
        fields, admitted, stores, denials = received
        if self.owned_limiter is not None:
            stores.add(self.owned_limiter)
        if answer is not None:
            response = self._create_response(answer, connection, decision)
            denials.append(response)
            scope[DENIED] = response.status_code
            raise RateLimitDenied(response, decision)
        if decision is not None and scope["type"] == "http":
            fields[:] = join_legacy(fields, added) if self.writes_legacy and fields else [*fields, *added]
        if decision is not None and not _is_accepted(connection):
            admitted.append((self, given, ruling))
        return decision

    def _create_response(self, answer: Denial, connection: HTTPConnection, decision: Decision | None) -> Response:
        """Create the response to a request that is not admitted."""
        status, fields, body = answer
        response = None if self._respond is None or decision is None else self._respond(connection, decision)
        if response is None:
            response = Response(body, status)
            response.raw_headers = [*fields]
            return response
        if not isinstance(response, Response):
            raise invalid_result("on_denied must return a Response or None", response, "such as JSONResponse({})")
        present = {name for name, _ in response.raw_headers} | {b"content-type", b"content-length"}
        response.raw_headers += [field for field in fields if field[0] not in present]
        return response


def _takes_connection(argument: object) -> bool:
    """Return whether an argument of a `RateLimit` is a function, or an identity by one."""
    return callable(argument.key if isinstance(argument, Identity) else argument)


def _is_accepted(connection: HTTPConnection) -> bool:
    """Return whether a connection is a WebSocket that has been accepted, so that its messages are limited."""
    return isinstance(connection, WebSocket) and connection.application_state is WebSocketState.CONNECTED


# --- the application


async def _answer(usual: Any, connection: HTTPConnection, denied: RateLimitDenied) -> Response | None:
    """Answer a denied request, or refuse or close a denied WebSocket.

    `usual` is the handler of the application for `HTTPException`; if it is not FastAPI's, it answers requests.
    """
    if isinstance(connection, WebSocket):
        with suppress(WebSocketDisconnect):
            await _close(connection, denied)
        return None
    if usual is http_exception_handler:
        return denied.response
    answer = usual(connection, denied) if is_deferred(usual) else run_in_threadpool(usual, connection, denied)
    return await answer  # type: ignore[no-any-return]


async def _close(websocket: WebSocket, denied: RateLimitDenied) -> None:
    """Refuse or close a denied WebSocket."""
    accepted = _is_accepted(websocket)
    if not accepted and ADMITTED in websocket.scope:
        await refund_all(websocket.scope, websocket.scope[ADMITTED][1])
    if not accepted and "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(denied.response)
        return
    reason = denied.detail.encode()[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")
    await websocket.close(_TRY_AGAIN_LATER if accepted else _POLICY_VIOLATION, reason)


def _check_routes(routes: Iterable[Any]) -> None:
    """Raise `InputError` for a limit without `Depends`, which would be a parameter of the request, or be ignored."""
    for route in _iterate(routes):
        dependant = getattr(route, "dependant", None)
        for kind in ("query_params", "body_params"):
            for field in getattr(dependant, kind, ()):
                info = field.field_info
                if any(isinstance(each, RateLimit) for each in (info.default, *info.metadata)):
                    raise InputError(f"{route.path}: {_WITHOUT_DEPENDS}")


def document_limits(schema: dict[str, Any], routes: Iterable[Any]) -> None:
    """Add the status 429 to the operations of an OpenAPI schema that have a limit, unless they document it.

    `FastAPI.openapi` calls it. An application with an `openapi` of its own calls it with `app.routes`.
    """
    for route in _iterate(routes):
        limited = _is_limited(getattr(route, "dependant", None))
        for method in (getattr(route, "methods", None) or ()) if limited else ():
            operation = schema.get("paths", {}).get(route.path_format, {}).get(method.lower())
            if operation is not None:
                operation["responses"].setdefault("429", OPENAPI_DENIAL)


def _is_limited(dependant: Any) -> bool:
    """Return whether a `RateLimit` is among the dependencies of a route, and their dependencies."""
    needed = [] if dependant is None else dependant.dependencies
    return any(isinstance(each.call, RateLimit) or _is_limited(each) for each in needed)


# default arguments keep the methods that are extended, also when the module is reloaded
@wraps(FastAPI.build_middleware_stack)
def _build_limited_stack(self: FastAPI, build: Callable[[FastAPI], App] = FastAPI.build_middleware_stack) -> App:
    _check_routes(self.routes)
    handlers: Any = self.exception_handlers
    usual = next(handlers[each] for each in RateLimitDenied.__mro__[1:] if each in handlers)
    handlers.setdefault(RateLimitDenied, partial(_answer, usual))
    return LimitedResponses(build(self))


@wraps(FastAPI.openapi)
def _document_limits(self: FastAPI, openapi: Callable[[FastAPI], dict[str, Any]] = FastAPI.openapi) -> dict[str, Any]:
    schema = openapi(self)
    document_limits(schema, self.routes)
    return schema


FastAPI.build_middleware_stack = _build_limited_stack  # type: ignore[method-assign]
FastAPI.openapi = _document_limits  # type: ignore[method-assign]
