"""ASGI middleware that enforces the decisions of a limiter, with delayed admission for algorithms that queue."""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any

from ratelab.errors import ConfigurationWarning, InputError, StoreError, short_repr
from ratelab.http.asgi import (
    PROBLEM_HEADERS,
    App,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    problem,
    quota_exceeded,
    reduced_capacity,
    send_response,
)
from ratelab.http.counters import Counts
from ratelab.http.headers import HeaderWriter, ceil_seconds
from ratelab.http.identity import SECRET, AmbiguousClientError, Identity
from ratelab.limiter import NEVER, AsyncLimiter, Limiter, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.memory import MemoryLimiter

MAX_GUARDS = 256
"""Limiters that a function of the scope may choose among, each kept with its `Guard`."""

MAX_CACHED_DENIALS = 1024
"""Denials, by their seconds of `Retry-After`, that are kept encoded."""

MAX_BUFFERED_BODY_BYTES = 65_536
"""How much of a request's body is buffered while the request is delayed; beyond that, a disconnect goes unnoticed."""

NS_PER_MS = 10**6

_NO_SECRET = (
    f"{SECRET} is not set: a client counts as another one on other machines and after a restart, and is granted the "
    "whole quota again; set the same secret for all instances"
)

AnyLimiter = Limiter | AsyncLimiter

Denial = tuple[int, Headers, bytes]
"""Status, headers and body of the response to a denied request."""

Guard = tuple[
    Callable[[str, int], Any],
    bool,
    Callable[[int, int, bool], Headers],
    Callable[[int, int, int], Denial],
]
"""What requests need of a limiter: the function that decides, whether to await it, `HeaderWriter.format`, and a
function that returns the denial for `remaining`, `retry_after_ns` and `reset_after_ns`.

A plain tuple, because that is fastest to unpack.
"""


class RateLimitMiddleware:
    """Limit the requests of each client: `app = RateLimitMiddleware(app, MemoryLimiter(policy))`.

    `limiter` may be sync or async, or a function of the ASGI scope that returns one of a few long-lived limiters.
    `key` identifies the client: `ip`, `header:NAME`, an `Identity`, or a function of the scope that returns text.
    `cost` is a whole number >= 0, or a function of the scope that returns one. Requests for which the function `exempt`
    of the scope is true are neither limited nor counted; protocols other than HTTP are not limited either. None of
    these functions may be a coroutine function.

    Responses carry `RateLimit-Policy` and `RateLimit`, with the name `policy` instead of that of the limiter's policy
    if given, and `X-RateLimit-*` as `legacy` says (see `HeaderWriter`). Requests that do not reach `app` are answered

    * 429 if they are denied,
    * 400 if they cost more than the burst, or if the header that identifies the client is repeated,
    * 503 if the limiter raises `StoreError`, because its store made no decision (see `ratelab.stores.resilient`).

    An admitted request with a delay waits before it reaches `app`, unless it costs nothing. It stays charged if its
    client disconnects.

    Raise `InputError` for invalid arguments; a request raises it if its cost is not a whole number >= 0.
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
    ) -> None:
        if not callable(cost) and (type(cost) is not int or cost < 0):
            raise InputError(f"cost must be a whole number >= 0 or a function of the scope, got {short_repr(cost)}")
        if exempt is not None and not callable(exempt):
            raise InputError(f"exempt must be a function of the scope, got {short_repr(exempt)}")
        for name, function in (("limiter", limiter), ("key", key), ("cost", cost), ("exempt", exempt)):
            if iscoroutinefunction(function):
                raise InputError(f"{name} must be a plain function, got {short_repr(function)}: it is not awaited")
        self.app = app
        self.counts = Counts()
        self._guard_options = legacy, policy
        self._guards: dict[int, Guard] = {}  # by the id of the limiter, which its guard keeps alive
        self._choose: Callable[[Scope], AnyLimiter] = limiter if callable(limiter) else lambda _: limiter
        self._identity = identity = key if isinstance(key, Identity) else Identity(key)
        guard = None if callable(limiter) else self._create_guard(limiter)
        fixed_cost, cost_of = (0, cost) if callable(cost) else (cost, None)
        self._hot = app, exempt, identity.find, fixed_cost, cost_of, guard, self.counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: a request, a WebSocket or the lifespan."""
        app, exempt, find_key, cost, cost_of, guard, counts = self._hot  # one attribute lookup instead of seven
        if scope["type"] != "http" or (exempt is not None and exempt(scope)):
            await app(scope, receive, send)
            return
        try:
            key = find_key(scope)
        except AmbiguousClientError as error:
            counts.ambiguous += 1
            await send_response(scope, send, 400, PROBLEM_HEADERS, problem(400, str(error)))
            return
        decide, awaited, format_headers, deny = self._find_guard(scope) if guard is None else guard
        if cost_of is not None:
            cost = cost_of(scope)
        try:
            row: Row = await decide(key, cost) if awaited else decide(key, cost)
        except StoreError as error:
            counts.unavailable += 1
            await _send_unavailable(scope, send, error)
            return
        allowed, remaining, retry_after_ns, reset_after_ns, delay_ns = row
        if not allowed:
            counts.denied += 1
            status, denial_headers, body = deny(remaining, retry_after_ns, reset_after_ns)
            await send({"type": "http.response.start", "status": status, "headers": [*denial_headers]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        if delay_ns and cost:
            delayed_receive = await self._delay(delay_ns, receive)
            if delayed_receive is None:
                return
            receive, reset_after_ns = delayed_receive, reset_after_ns - delay_ns
        counts.admitted += 1
        headers = format_headers(remaining, -(-reset_after_ns // NS_PER_S), False)

        # default arguments take less time than a closure
        def send_with_headers(message: Message, send: Send = send, headers: Headers = headers) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = dict(message)  # a copy, since an application may send the same message again
                message["headers"] = [*message.get("headers", ()), *headers]
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
            if len(self._guards) >= MAX_GUARDS:  # the function creates a limiter for each request
                self._guards.clear()
            guard = self._guards[id(limiter)] = self._create_guard(limiter)
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


def create_guard(limiter: AnyLimiter, legacy: str, policy_name: str | None) -> Guard:
    """Create the guard of a limiter. Raise `InputError` for an object that is not a limiter, or blocks on its store."""
    if not callable(getattr(limiter, "hit", None)):
        raise InputError(f"limiter must be a limiter, such as MemoryLimiter(policy), got {short_repr(limiter)}")
    if getattr(limiter, "blocking", False):
        name = type(limiter).__name__
        raise InputError(f"limiter must not block the event loop, got {name}: use AsyncValkeyLimiter")
    policy_name = limiter.policy.name if policy_name is None else policy_name
    writer = HeaderWriter(limiter.policy, legacy, policy_name)

    def deny_for(wait: int) -> Denial:
        """Return the denial of a request that may be repeated after `wait` seconds."""
        return _denial(429, writer.format(0, wait, True), quota_exceeded(policy_name, wait))

    cached_deny_for = deny_for if legacy == "epoch" else lru_cache(maxsize=MAX_CACHED_DENIALS)(deny_for)

    def deny(remaining: int, retry_after_ns: int, reset_after_ns: int) -> Denial:
        if retry_after_ns != NEVER:
            return cached_deny_for(-(-retry_after_ns // NS_PER_S))
        detail = f"A cost above {writer.burst} is never granted: ask for less at once."
        return _denial(400, writer.format(remaining, ceil_seconds(reset_after_ns), False), problem(400, detail))

    decide = _decision_function(limiter)
    return decide, iscoroutinefunction(decide), writer.format, deny


def _decision_function(limiter: AnyLimiter) -> Callable[[str, int], Any]:
    """Return `hit`, or its faster form `MemoryLimiter.hit_row` unless a subclass or an instance overrides `hit`."""
    if isinstance(limiter, MemoryLimiter) and getattr(limiter.hit, "__func__", None) is MemoryLimiter.hit:
        return limiter.hit_row
    return limiter.hit


def _denial(status: int, headers: Headers, body: bytes) -> Denial:
    return status, (*PROBLEM_HEADERS, *headers, (b"content-length", b"%d" % len(body))), body


async def _send_unavailable(scope: Scope, send: Send, error: StoreError) -> None:
    """Answer 503; the text of `error` is for the operator only."""
    wait = max(1, ceil_seconds(error.retry_after_ns))
    await send_response(scope, send, 503, (*PROBLEM_HEADERS, (b"retry-after", b"%d" % wait)), reduced_capacity(wait))


async def delay_request(delay_ns: int, receive: Receive) -> Receive | None:
    """Sleep for `delay_ns`, rounded up to milliseconds; return None at once if the client disconnects.

    Otherwise, return the function from which the application receives the request. It first returns the messages that
    arrived during the delay: `receive` is called meanwhile, because only that reveals a disconnect.
    """
    buffered: deque[Message] = deque()
    sleep = asyncio.ensure_future(asyncio.sleep(-(-delay_ns // NS_PER_MS) / 1000))
    watch = asyncio.ensure_future(_watch_disconnect(receive, buffered))
    try:
        await asyncio.wait((sleep, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done() and watch.result():
            return None
        await sleep
    finally:
        for task in (sleep, watch):
            task.cancel()
        await asyncio.wait((sleep, watch))

    async def receive_buffered() -> Message:
        return buffered.popleft() if buffered else await receive()

    return receive_buffered


async def _watch_disconnect(receive: Receive, buffered: deque[Message]) -> bool:
    """Buffer messages; return True when the client disconnects, False when `MAX_BUFFERED_BODY_BYTES` are exceeded."""
    size = 0
    while size <= MAX_BUFFERED_BODY_BYTES:
        message = await receive()
        buffered.append(message)
        if message["type"] == "http.disconnect":
            return True
        size += len(message.get("body", b"")) + 1
    return False
