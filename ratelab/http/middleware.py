"""ASGI middleware that enforces the decisions of a limiter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, Unpack

from ratelab.algorithms import Policy
from ratelab.errors import StoreError
from ratelab.http.asgi import App, Field, Message, Receive, Scope, Send
from ratelab.http.delayed_admission import create_trio_error, delay_and_count
from ratelab.http.gate import Gate, PolicyArguments, create_from_file
from ratelab.http.identity import AmbiguousClientError, Identity
from ratelab.http.policy_rules import AnyLimiter
from ratelab.http.responses import (
    DENIED,
    DenialHook,
    Ruling,
    join_on_send,
    read_denial,
    send_denial,
    send_dropped,
    send_problem,
    send_unavailable,
    was_denied,
)
from ratelab.http.scope_functions import check_app, check_bool, check_cost
from ratelab.limiter import Decision, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.sleepers import running_trio

NS_PER_S_LESS_ONE = NS_PER_S - 1


class RateLimitMiddleware(Gate):
    """Limit the requests of each client: `app = RateLimitMiddleware(app, MemoryLimiter(policy))`.

    `limiter` may be sync or async, or a function of the ASGI scope that returns one of a few long-lived limiters. A
    `Policy`, or a list of them, is enforced in memory.
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
    client disconnects, and is then answered 503. One with a delay of more than `max_delay` seconds is refunded and
    answered 429; by default, no delay is too long. `decision_of(scope)` returns the decision, for use in `app`.

    The other arguments are for limiters of several policies, which the page `policies` of the manual explains. `costs`
    are costs by name, in addition to `requests` and `bytes`. `account` identifies the account of a request as `key`
    does its client. `plan` and the next three arguments are those of `PlanSource`; without a plan, the quotas are those
    of the policies. `charge` is a function of the scope and the status of the response that returns whether the request
    stays charged. `from_file` creates the limiter from a policy file, which is then the argument `file`.

    None of the functions but `plan` is awaited. Raise `InputError` for invalid arguments. A request raises it if a
    function returns an invalid value, such as a coroutine.
    """

    def __init__(
        self,
        app: App,
        limiter: AnyLimiter | Policy | list[Policy] | tuple[Policy, ...] | Callable[[Scope], AnyLimiter],
        key: str | Identity | Callable[[Scope], str | None] = "ip",
        cost: int | Callable[[Scope], int] = 1,
        exempt: Callable[[Scope], bool] | None = None,
        legacy: str = "off",
        policy: str | None = None,
        on_denied: DenialHook | None = None,
        **policy_arguments: Unpack[PolicyArguments],
    ) -> None:
        check_app(app, 3, "app must be an ASGI application", "use ratelab.wsgi.RateLimitMiddleware for WSGI")
        self.app = app
        super().__init__(limiter, key, cost, exempt, legacy, policy, on_denied, **policy_arguments)

    @classmethod
    def from_file(
        cls,
        app: App,
        path: str,
        limiter: Callable[..., AnyLimiter] = MemoryLimiter,
        key: str | Identity | Callable[[Scope], str | None] = "ip",
        **arguments: Any,
    ) -> Self:
        """Limit requests by the policy file at `path`, and follow changes of it.

        `limiter` creates the limiter, given the policies and the keyword arguments `plans` and `overrides`; by default,
        in memory. The other arguments are those of the class; `plan`, `default_plan` and `account` replace those of the
        file.

        A file that has changed is read again at the next request, at most once a second. If it is invalid, an error is
        logged, and the policies stay in force. Raise `InputError` for an invalid file or argument.
        """
        created, identity, file = create_from_file(path, limiter, key)
        return cls(app, created, identity, file=file, **arguments)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection: a request, a WebSocket or the lifespan."""
        app, exempt, guard = self.app, self._exempt, self._guard
        if guard is None and self.policy_guard is not None:
            await self._serve_by_policies(scope, receive, send)
            return
        if scope["type"] != "http" or (
            exempt is not None and (exempted := exempt(scope)) and (exempted is True or check_bool("exempt", exempted))
        ):
            await app(scope, receive, send)
            return
        key: str | None = None
        counts, keys_by_peer = self.counts, self._keys_by_peer
        if keys_by_peer is not None:
            try:  # noqa: SIM105  (faster than `suppress`)
                key = keys_by_peer[scope["client"][0]]
            except (LookupError, TypeError):  # a new peer, or a Unix socket, which has none
                pass
        if key is None:
            try:
                key = self._find_key(scope)
            except AmbiguousClientError as error:
                counts.ambiguous += 1
                scope[DENIED] = 400
                await send_problem(scope, send, 400, str(error))
                return
        guard = guard or self._choose_guard(scope)
        decide, cost_of = guard.decide, self._cost_of
        cost = self._cost if cost_of is None else check_cost(cost_of(scope))
        try:
            row: Row = (await decide(key, cost))[:5] if guard.awaited else decide(key, cost)
        except StoreError as error:
            counts.unavailable += 1
            scope[DENIED] = 503
            await send_unavailable(scope, send, error.retry_after_ns)
            return
        except RuntimeError as error:
            if not guard.awaited or running_trio() is None:
                raise
            raise create_trio_error() from error
        allowed, remaining, retry_after_ns, reset_after_ns, delay_ns = row
        if not allowed:
            counts.denied += 1
            self.offenders.add(key)
            status, denial_headers, body = guard.deny(remaining, retry_after_ns, reset_after_ns)
            if self._on_denied is not None:
                answer = self._on_denied(scope, Decision(*row, bound_by=guard.name))
                if answer is not None:
                    status, denial_headers, body = read_denial(answer, denial_headers)
            scope[DENIED] = status
            await send({"type": "http.response.start", "status": status, "headers": [*denial_headers]})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        if delay_ns and cost:
            await self._serve_ruled(scope, receive, send, self._rule_decided(scope, guard, key, cost, row))
            return
        counts.admitted += 1
        scope["ratelab"] = row  # `decision_of` makes it a Decision, for applications that want one
        seconds = (reset_after_ns + NS_PER_S_LESS_ONE) // NS_PER_S  # rounded up
        try:
            headers = guard.cache[remaining, seconds]
        except KeyError:
            headers = guard.format(remaining, seconds, False)

        if self.writes_legacy:
            await app(scope, receive, self._add_fields(scope, send, headers))
            return

        # default arguments take less time than a closure
        def send_with_headers(
            message: Message, send: Send = send, headers: list[Field] = headers, scope: Scope = scope
        ) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                if DENIED in scope:
                    return self._add_fields(scope, send, headers)(message)
                message = dict(message)  # a copy, since an application may send the same message again
                fields = message.get("headers", ())
                message["headers"] = fields + headers if type(fields) is list else [*fields, *headers]
            return send(message)

        await app(scope, receive, send_with_headers)

    async def _serve_by_policies(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection that several policies decide."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self._serve_ruled(scope, receive, send, await self.rule(scope))

    async def _serve_ruled(self, scope: Scope, receive: Receive, send: Send, ruling: Ruling) -> None:
        """Serve a request as ruled, after its delay."""
        if ruling.delay_ns:
            ruling = await self.bound_delay(ruling)
        if ruling.answer is not None:
            scope[DENIED] = ruling.answer[0]
            await send_denial(scope, send, ruling.answer)
            return
        if ruling.decision is None:
            await self.app(scope, receive, send)
            return
        if ruling.delay_ns:
            delayed_receive = await delay_and_count(ruling.delay_ns, receive, self.counts)
            if delayed_receive is None:
                await send_dropped(scope, send)
                return
            receive = delayed_receive
        self.counts.admitted += 1
        send = self._add_fields(scope, send, ruling.fields, ruling)
        if self._charge is None:
            await self.app(scope, receive, send)
        else:
            await self._settle_by_status(scope, receive, send, ruling)

    def _add_fields(self, scope: Scope, send: Send, fields: Sequence[Field], ruling: Ruling | None = None) -> Send:
        """Wrap `send` to add the header fields of an admitted request; refund it if an inner limit denies it."""

        async def send_with_fields(message: Message) -> None:
            added = fields
            if message["type"] == "http.response.start" and was_denied(scope, message["status"]):
                added = await self.withdraw(scope, ruling)
            await join_on_send(send, added)(message)

        return send_with_fields

    async def _settle_by_status(self, scope: Scope, receive: Receive, send: Send, ruling: Ruling) -> None:
        """Refund a request whose status is not charged, before its response starts."""
        started = False

        async def send_and_settle(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start" and not started:
                started = True
                if not was_denied(scope, message["status"]):
                    await self.settle(scope, ruling, message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_and_settle)
        except Exception:
            if not started:  # the server answers 500
                await self.settle(scope, ruling, 500)
            raise
