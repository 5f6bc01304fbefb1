"""ASGI middleware that enforces the decisions of a limiter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NoReturn

from ratelab.errors import ConfigurationWarning, InputError, StoreError, short_repr
from ratelab.http.asgi import App, Field, Message, Receive, Scope, Send
from ratelab.http.counters import Counts
from ratelab.http.delayed_admission import delay_request, running_trio
from ratelab.http.headers import HeaderWriter, ceil_seconds
from ratelab.http.identity import SECRET, AmbiguousClientError, Identity
from ratelab.http.responses import (
    PROBLEM_HEADERS,
    Denial,
    DenialHook,
    build_denial,
    join_on_send,
    problem,
    quota_exceeded,
    read_denial,
    send_dropped,
    send_response,
    send_unavailable,
)
from ratelab.http.scope_functions import check_function, invalid_result, is_deferred
from ratelab.limiter import NEVER, AsyncLimiter, Decision, Limiter, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.memory import MemoryLimiter

MAX_GUARDS = 256
"""Limiters that a function of the scope may choose among, each kept with its `Guard`."""

MAX_CACHED_DENIALS = 1024
"""Denials, by their seconds of `Retry-After`, that are kept encoded."""

NS_PER_S_LESS_ONE = NS_PER_S - 1

MIN_NEW_LIMITERS = 10
"""Requests, each with another limiter, after which a function counts as one that creates a limiter each time."""

_NO_SECRET = (
    f"{SECRET} is not set: a client counts as another one on other machines and after a restart, and is granted the "
    "whole quota again; set the same secret for all instances"
)

AnyLimiter = Limiter | AsyncLimiter

Guard = tuple[
    Callable[[str, int], Any],
    bool,
    dict[tuple[int, int], list[Field]],
    Callable[[int, int, bool], list[Field]],
    Callable[[int, int, int], Denial],
]
"""What requests need of a limiter: the function that decides, whether to await it, `cache` and `format` of its
`HeaderWriter`, and a function that returns the denial for `remaining`, `retry_after_ns` and `reset_after_ns`.

A plain tuple, because that is fastest to unpack.
"""

_log = logging.getLogger("ratelab.http")


class RateLimitMiddleware:
    """Limit the requests of each client: `app = RateLimitMiddleware(app, MemoryLimiter(policy))`.

    `limiter` may be sync or async, or a function of the ASGI scope that returns one of a few long-lived limiters.
    `key` identifies the client: `ip`, `header:NAME`, an `Identity`, or a function of the scope that returns text.
    `cost` is a whole number >= 0, or a function of the scope that returns one. Requests for which the function `exempt`
    of the scope returns True are neither limited nor counted; protocols other than HTTP are not limited either.
    `by_route` makes functions that choose by route.

    Responses carry `RateLimit-Policy` and `RateLimit`, with the name `policy` instead of that of the limiter's policy
    if given, and `X-RateLimit-*` as `legacy` says (see `HeaderWriter`). Requests that do not reach `app` are answered

    * 429 if they are denied,
    * 400 if they cost more than the burst, or if the header that identifies the client is repeated,
    * 503 if the limiter raises `StoreError`, because its store made no decision (see `ratelab.stores.resilient`).

    `on_denied` is called with the scope and the `Decision` of a denied request. It returns the status, the headers and
    the body of the response, to which the limit's header fields and `Content-Length` are added, or None for the usual
    response.

    An admitted request with a delay waits before it reaches `app`, unless it costs nothing. It stays charged if its
    client disconnects, and is then answered 503. `decision_of(scope)` returns the decision, for use in `app`.

    None of the functions is awaited. Raise `InputError` for invalid arguments. A request raises it if a function
    returns an invalid value, such as a coroutine.
    """

    def __init__(
        self,
        app: App,
        limiter: AnyLimiter | Callable[[Scope], AnyLimiter],
        key: str | Identity | Callable[[Scope], str | None] = "ip",
        cost: int | Callable[[Scope], int] = 1,
        exempt: Callable[[Scope], bool] | None = None,
        legacy: str = "off",
        policy: str | None = None,
        on_denied: DenialHook | None = None,
    ) -> None:
        if not callable(cost) and (type(cost) is not int or cost < 0):
            raise InputError(f"cost must be a whole number >= 0 or a function of the scope, got {short_repr(cost)}")
        functions = {"limiter": limiter, "key": key, "cost": cost, "exempt": exempt, "on_denied": on_denied}
        for name, function in functions.items():
            if name in ("exempt", "on_denied") and function is not None and not callable(function):
                raise InputError(f"{name} must be a function of the scope, got {short_repr(function)}")
            check_function(name, function)
        self.app = app
        self.counts = Counts()
        self._on_denied = on_denied
        self._guard_options = legacy, policy
        self._guards: dict[int, Guard] = {}  # by the id of the limiter, which its guard keeps alive
        self._new_limiters, self._warned_of_limiters = 0, False
        self._choose: Callable[[Scope], AnyLimiter] = limiter if callable(limiter) else lambda _: limiter
        self._identity = identity = key if isinstance(key, Identity) else Identity(key)
        guard = None if callable(limiter) else self._create_guard(limiter)
        fixed_cost, cost_of = (0, cost) if callable(cost) else (cost, None)
        self._hot = (
            app,
            exempt,
            identity.keys_by_peer,
            identity.find,
            fixed_cost,
            cost_of,
            guard,
            legacy != "off",
            self.counts,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: a request, a WebSocket or the lifespan."""
        app, exempt, keys_by_peer, find_key, cost, cost_of, guard, legacy, counts = self._hot  # one attribute lookup
        if scope["type"] != "http" or (
            exempt is not None and (exempted := exempt(scope)) and (exempted is True or _reject_exempt(exempted))
        ):
            await app(scope, receive, send)
            return
        key: str | None = None
        if keys_by_peer is not None:
            try:  # noqa: SIM105  (faster than `suppress`)
                key = keys_by_peer[scope["client"][0]]
            except (LookupError, TypeError):  # a new peer, or a Unix socket, which has none
                pass
        if key is None:
            try:
                key = find_key(scope)
            except AmbiguousClientError as error:
                counts.ambiguous += 1
                await send_response(scope, send, 400, PROBLEM_HEADERS, problem(400, str(error)))
                return
        decide, awaited, cache, format_headers, deny = self._find_guard(scope) if guard is None else guard
        if cost_of is not None:
            cost = cost_of(scope)
            if type(cost) is not int or cost < 0:
                raise invalid_result("cost must be a whole number >= 0", cost, "convert it with int()")
        try:
            row: Row = await decide(key, cost) if awaited else decide(key, cost)
        except StoreError as error:
            counts.unavailable += 1
            await send_unavailable(scope, send, error.retry_after_ns)
            return
        except RuntimeError as error:
            if not awaited or running_trio() is None:
                raise
            raise InputError("a limiter in a store needs asyncio, not Trio: run the server on asyncio") from error
        allowed, remaining, retry_after_ns, reset_after_ns, delay_ns = row if len(row) == 5 else row[:5]
        if not allowed:
            counts.denied += 1
            status, denial_headers, body = deny(remaining, retry_after_ns, reset_after_ns)
            if self._on_denied is not None:
                answer = self._on_denied(scope, Decision(*row))
                if answer is not None:
                    status, denial_headers, body = read_denial(answer, denial_headers)
            await send({"type": "http.response.start", "status": status, "headers": [*denial_headers]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        if delay_ns and cost:
            delayed_receive = await self._delay(delay_ns, receive)
            if delayed_receive is None:
                await send_dropped(scope, send)
                return
            receive, reset_after_ns = delayed_receive, reset_after_ns - delay_ns
        counts.admitted += 1
        scope["ratelab"] = row  # `decision_of` makes it a Decision, for applications that want one
        seconds = (reset_after_ns + NS_PER_S_LESS_ONE) // NS_PER_S  # rounded up
        try:
            headers = cache[remaining, seconds]
        except KeyError:
            headers = format_headers(remaining, seconds, False)

        if legacy:
            await app(scope, receive, join_on_send(send, headers))
            return

        # default arguments take less time than a closure
        def send_with_headers(message: Message, send: Send = send, headers: list[Field] = headers) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = dict(message)  # a copy, since an application may send the same message again
                fields = message.get("headers", ())
                message["headers"] = fields + headers if type(fields) is list else [*fields, *headers]
            return send(message)

        await app(scope, receive, send_with_headers)

    async def _delay(self, delay_ns: int, receive: Receive) -> Receive | None:
        """Delay a request as `delay_request` does, and count it."""
        counts, delayed_receive = self.counts, None
        counts.waiting += 1
        try:
            delayed_receive = await delay_request(delay_ns, receive)
        finally:
            counts.waiting -= 1
            if delayed_receive is None:
                counts.dropped += 1
            else:
                counts.delayed += 1
        return delayed_receive

    def _find_guard(self, scope: Scope) -> Guard:
        """Return the guard of the limiter chosen for a request; create it for a new limiter."""
        limiter = self._choose(scope)
        guard = self._guards.get(id(limiter))
        if guard is None:
            guard = self._create_guard(limiter)
            if len(self._guards) >= MAX_GUARDS:
                self._guards.clear()
            self._guards[id(limiter)] = guard
            self._watch_limiters()
        return guard

    def _create_guard(self, limiter: AnyLimiter) -> Guard:
        """Create the guard of a limiter; if it is in a store, have it compare the secret with that of others."""
        guard = create_guard(limiter, *self._guard_options)
        use_secret = getattr(limiter, "use_secret", None)
        if use_secret is not None:
            if self._identity.secret_generated:
                warnings.warn(_NO_SECRET, ConfigurationWarning, stacklevel=3)
            use_secret(self._identity.fingerprint, self._identity.secret_generated)
        return guard

    def _watch_limiters(self) -> None:
        """Log a warning, once, if the function creates a limiter for each request, which never denies any."""
        self._new_limiters += 1
        requests = self.counts.admitted + self.counts.denied + self.counts.waiting + self.counts.dropped + 1
        each_time = self._new_limiters >= max(MIN_NEW_LIMITERS, requests)
        if not self._warned_of_limiters and (each_time or self._new_limiters > MAX_GUARDS):
            self._warned_of_limiters = True
            _log.warning(
                f"the function given as limiter has returned {self._new_limiters} limiters for {requests} requests, "
                "each with a new quota: create the limiters once, and let it return one of them"
            )


def create_guard(limiter: AnyLimiter, legacy: str, policy_name: str | None) -> Guard:
    """Create the guard of a limiter. Raise `InputError` for an object that is not a limiter, or blocks on its store."""
    if not callable(getattr(limiter, "hit", None)):
        raise invalid_result("limiter must be a limiter, such as MemoryLimiter(policy)", limiter, "it has no hit()")
    if getattr(limiter, "blocking", False):
        name = type(limiter).__name__
        raise InputError(f"limiter must not block the event loop, got {name}: use AsyncValkeyLimiter")
    policy_name = limiter.policy.name if policy_name is None else policy_name
    writer = HeaderWriter(limiter.policy, legacy, policy_name)

    def deny_for(wait: int) -> Denial:
        """Return the denial of a request that may be repeated after `wait` seconds."""
        return build_denial(429, writer.format(0, wait, True), quota_exceeded([policy_name], wait))

    cached_deny_for = deny_for if legacy == "epoch" else lru_cache(maxsize=MAX_CACHED_DENIALS)(deny_for)

    def deny(remaining: int, retry_after_ns: int, reset_after_ns: int) -> Denial:
        if retry_after_ns != NEVER:
            return cached_deny_for(-(-retry_after_ns // NS_PER_S))
        detail = f"A cost above {writer.burst} is never granted: ask for less at once."
        return build_denial(400, writer.format(remaining, ceil_seconds(reset_after_ns), False), problem(400, detail))

    decide = _decision_function(limiter)
    cache: dict[tuple[int, int], list[Field]] = {} if legacy == "epoch" else writer.cache
    return decide, is_deferred(decide), cache, writer.format, deny


def _decision_function(limiter: AnyLimiter) -> Callable[[str, int], Any]:
    """Return `hit`, or its faster form `MemoryLimiter.hit_row` unless a subclass or an instance overrides `hit`."""
    if isinstance(limiter, MemoryLimiter) and getattr(limiter.hit, "__func__", None) is MemoryLimiter.hit:
        return limiter.hit_row
    return limiter.hit


def _reject_exempt(value: object) -> NoReturn:
    raise invalid_result("exempt must return True or False", value, "convert it with bool()")
