"""`RateLimitMiddleware`: a limiter in front of any ASGI application."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, Self

from ratelab.errors import InputError, StoreError, short_repr
from ratelab.http.asgi import (
    PROBLEM_HEADERS,
    App,
    Field,
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
from ratelab.http.headers import SECOND, HeaderWriter, seconds
from ratelab.http.identity import AmbiguousClientError, Identity
from ratelab.limiter import NEVER, AsyncLimiter, Decision, Limiter

MOST_KEPT = 65_536
"""Bytes of a body that are taken meanwhile; a client that sends more is not watched any longer."""

_MILLISECOND = 10**6


async def wait_turn(delay_ns: int, receive: Receive) -> Receive | None:
    """Sleep `delay_ns`, rounded up to milliseconds; return what the application is to receive from, None for nobody.

    The end of the request is awaited meanwhile, so that a client that has left keeps neither a task nor memory until
    its turn; what has come of the body is kept for the application.
    """
    taken: deque[Message] = deque()
    sleeping = asyncio.ensure_future(asyncio.sleep(-(-delay_ns // _MILLISECOND) / 1000))
    leaving = asyncio.ensure_future(_leaving(receive, taken))
    try:
        await asyncio.wait((sleeping, leaving), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and leaving.result():
            return None
        await sleeping
    finally:
        for task in (sleeping, leaving):
            task.cancel()
        await asyncio.wait((sleeping, leaving))

    async def receive_rest() -> Message:
        return taken.popleft() if taken else await receive()

    return receive_rest


async def _leaving(receive: Receive, taken: deque[Message]) -> bool:
    """Take messages until the client leaves; say so, or that it sends too much to go on."""
    size = 0
    while size <= MOST_KEPT:
        message = await receive()
        taken.append(message)
        if message["type"] == "http.disconnect":
            return True
        size += len(message.get("body", b"")) + 1
    return False


MOST_GUARDS = 256
"""Limiters that a function of the scope may choose among, each kept with how its decisions are told."""

AnyLimiter = Limiter | AsyncLimiter
"""A limiter that decides at once, or one that is awaited."""

Refusal = tuple[int, Headers, bytes]
"""Status, header fields and body of a response."""


class Guard(NamedTuple):
    """A limiter and how its decisions are told, taken apart for speed."""

    hit: Callable[[str, int], Any]
    """Decide; the `Decision` is to be awaited if the limiter is `waited_for`."""
    waited_for: bool
    written: Callable[[int, int, bool], Headers]
    refusal: Callable[[Decision], Refusal]

    @classmethod
    def of(cls, limiter: AnyLimiter, legacy: str, policy: str | None) -> Self:
        """Put a guard in front of what `limiter` guards."""
        if not callable(getattr(limiter, "hit", None)):
            raise InputError(f"limiter must be a limiter, such as MemoryLimiter(policy), got {short_repr(limiter)}")
        if getattr(limiter, "blocking", False):
            name = type(limiter).__name__
            raise InputError(f"limiter must not make all others wait for its store, got {name}: use AsyncValkeyLimiter")
        policy = limiter.policy.name if policy is None else policy
        fields = HeaderWriter(limiter.policy, legacy, policy)

        def exceeded(wait: int) -> Refusal:
            return _whole(429, fields.written(0, wait, True), quota_exceeded(policy, wait))

        kept = exceeded if legacy == "epoch" else lru_cache(maxsize=1024)(exceeded)

        def refusal(decision: Decision) -> Refusal:
            if decision.retry_after_ns != NEVER:
                return kept(seconds(decision.retry_after_ns))
            detail = f"A cost above {fields.burst} is never granted: ask for less at once."
            return _whole(400, fields.of(decision), problem(400, detail))

        return cls(limiter.hit, iscoroutinefunction(limiter.hit), fields.written, refusal)


def _adding(fields: Iterable[Field], send: Send) -> Send:
    """Add fields to the answer that is sent."""

    def send_with_fields(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = dict(message)
            message["headers"] = [*message.get("headers", ()), *fields]
        return send(message)

    return send_with_fields


def _whole(status: int, headers: Headers, body: bytes) -> Refusal:
    return status, (*PROBLEM_HEADERS, *headers, (b"content-length", b"%d" % len(body))), body


def _unavailable(error: StoreError) -> tuple[int, tuple[Field, ...], bytes]:
    """Return what `answer` is to send; what the error says is for the operator alone."""
    wait = max(1, seconds(error.retry_after_ns))
    return 503, (*PROBLEM_HEADERS, (b"retry-after", b"%d" % wait)), reduced_capacity(wait)


class RateLimitMiddleware:
    """Hold the clients of `app` to their quota: `app = RateLimitMiddleware(app, MemoryLimiter(...))`.

    `limiter` decides, at once or awaited, or is a function of the ASGI scope that returns the limiter for a request,
    one of a few that live as long as the middleware. `key` is `ip`, `header:NAME`, a function of the scope that returns
    text, or an `Identity`. `cost` is what a request costs, a whole number >= 0 or a function of the scope that returns
    one. Requests for which `exempt`, a function of the scope, is true pass unseen, and so does what is not HTTP. None
    of these functions is awaited.

    What `app` answers, and the 429 to a denied request, which never reaches it, carry `RateLimit-Policy` and
    `RateLimit` under the name of `policy`, by default its own name; `legacy` adds `X-RateLimit-*` (see
    `headers.Fields`). A request that must queue sleeps its delay first, unless it costs nothing. A charge is kept even
    if the client goes away. A cost above the burst is answered 400, for no wait can help; so is a request that has two
    lines of the header that names its client. One that the limiter's store does not decide is answered 503.

    Raises `InputError` for arguments that cannot be used; a request whose cost is no whole number >= 0 raises it too.
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
        self._told_as = legacy, policy
        self._guards: dict[int, Guard] = {}  # by the limiter's id; each holds its limiter
        self._choose: Callable[[Scope], AnyLimiter] = limiter if callable(limiter) else lambda _: limiter
        guard = None if callable(limiter) else Guard.of(limiter, legacy, policy)
        identity = key if isinstance(key, Identity) else Identity(key)
        fixed, priced = (0, cost) if callable(cost) else (cost, None)
        self._hot = app, exempt, identity.find, fixed, priced, guard, self.counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI."""
        app, exempt, identify, fixed, priced, guard, counts = self._hot  # one look-up instead of seven
        if scope["type"] != "http" or (exempt is not None and exempt(scope)):
            await app(scope, receive, send)
            return
        try:
            key = identify(scope)
        except AmbiguousClientError as error:
            counts.ambiguous += 1
            await send_response(scope, send, 400, PROBLEM_HEADERS, problem(400, str(error)))
            return
        hit, waited_for, written, refusal = guard or self._guard_of(scope)
        price = fixed if priced is None else priced(scope)
        try:
            decision: Decision = await hit(key, price) if waited_for else hit(key, price)
        except StoreError as error:
            counts.unavailable += 1
            await send_response(scope, send, *_unavailable(error))
            return
        allowed, remaining, _, reset_after_ns, delay_ns = decision
        if not allowed:
            counts.denied += 1
            status, headers, body = refusal(decision)
            await send({"type": "http.response.start", "status": status, "headers": [*headers]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        if delay_ns and price:
            waited = await self._wait(delay_ns, receive)
            if waited is None:
                return
            receive, reset_after_ns = waited, reset_after_ns - delay_ns
        counts.admitted += 1
        fields = written(remaining, -(-reset_after_ns // SECOND), False)
        await app(scope, receive, _adding(fields, send))

    async def _wait(self, delay_ns: int, receive: Receive) -> Receive | None:
        """Wait for a request's turn, and count how that ends; return as `wait_turn` does."""
        counts, waited = self.counts, None
        counts.waiting += 1
        try:
            waited = await wait_turn(delay_ns, receive)
        finally:
            counts.waiting -= 1
            if waited is None:
                counts.dropped += 1
            else:
                counts.delayed += 1
        return waited

    def _guard_of(self, scope: Scope) -> Guard:
        """Return the guard of the limiter chosen for a request, made when it is first chosen."""
        limiter = self._choose(scope)
        guard = self._guards.get(id(limiter))
        if guard is None:
            if len(self._guards) >= MOST_GUARDS:  # of a function that makes limiters without end
                self._guards.clear()
            guard = self._guards[id(limiter)] = Guard.of(limiter, *self._told_as)
        return guard
