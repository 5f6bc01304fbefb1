"""Django middleware, and the door behind it: the gates of a limit, and the way of a request through them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.signals import setting_changed

from ratelab.django.responses import (
    create_response,
    create_scope,
    decode_lists,
    find_status,
    is_asgi,
    join_fields,
    join_lists,
    load_user,
)
from ratelab.django.settings import InvalidSettingError, Options, Place, create_gate, may_read_user, read_options
from ratelab.errors import InputError, StoreError
from ratelab.http.asgi import Scope
from ratelab.http.doors import AwaitingGate, BlockingGate
from ratelab.http.guard import Guard
from ratelab.http.headers import MAX_CACHED_HEADERS
from ratelab.http.responses import Ruling
from ratelab.limiter import Decision, Row
from ratelab.quota import NS_PER_S

_WATCHED = ("RATELAB", "SECRET_KEY", "REST_FRAMEWORK")


class PeerGate(BlockingGate):
    """A gate that prepares the decisions on requests of known peers, if only their address and one policy count."""

    def rule_decided(self, scope: Scope, guard: Guard, key: str, cost: int, row: Row) -> Ruling:
        """Rule what to do with a request that the guard of a known peer has decided, after its delay; count it."""
        return self._hold(scope, self._rule_decided(scope, guard, key, cost, row))

    def rule_undecided(self, scope: Scope, error: StoreError) -> Ruling:
        """Rule what to do with a request of a known peer that the store made no decision on; count it."""
        return self._hold(scope, self._rule_undecided(error))

    def use(self, guard: Guard | None, find_guard: Any = None) -> None:
        """Decide the requests from now on as `Gate.use` does, those of known peers without their scope."""
        super().use(guard, find_guard)
        _, exempt, keys, _, cost, cost_of, _, _, writes_legacy, counts = self._hot
        if guard is None or keys is None or exempt is not None or cost_of is not None or writes_legacy:
            keys = {}
        self.known_peers: Any = (keys, cost, guard, {}, counts)
        """Their keys, the cost, the guard, header fields as text by `remaining` and `t`, and the counters."""


class Door:
    """Pass requests on unless a limit denies them.

    `collect` returns the options of the limit. Its gates are created on first use, and again with new quotas after an
    override of the settings.
    """

    def __init__(self, collect: Callable[[], Options], place: Place) -> None:
        self._collect = collect
        self._place = place
        self._lock = Lock()
        self._blocking: PeerGate | None = None
        self._awaiting: AwaitingGate | None = None
        self._loads_user = False
        setting_changed.connect(self._follow)

    def find_blocking(self) -> PeerGate:
        """Return the gate for requests that block a thread; raise `InvalidSettingError` for an invalid option."""
        gate = self._blocking
        if gate is None:
            with self._lock:
                gate = self._blocking = self._blocking or self._create(PeerGate)
        return gate

    def find_awaiting(self) -> AwaitingGate:
        """Return the gate for requests in an event loop; raise `InvalidSettingError` for an invalid option."""
        gate = self._awaiting
        if gate is None:
            with self._lock:
                gate = self._awaiting = self._awaiting or self._create(AwaitingGate)
        return gate

    def _create(self, kind: Any) -> Any:
        try:
            options = self._collect()
            self._loads_user = may_read_user(options)
            return create_gate(options, kind, self._place)
        except InputError as error:
            raise InvalidSettingError(f"{self._place.what}: {error}") from None

    def _follow(self, *, setting: str, **_: object) -> None:
        """Create the gates again after a change of a setting, as in a test."""
        if setting in _WATCHED:
            self._blocking = self._awaiting = None

    def pass_on(self, request: Any, respond: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the response to a request, after its delay: that of `respond(*args)`, unless it is denied."""
        gate = self._blocking or self.find_blocking()
        keys, cost, guard, cache, counts = gate.known_peers
        key = keys.get(request.META.get("REMOTE_ADDR", ""))
        if key is None:
            scope = create_scope(request)
            return self._pass_on_ruled(gate.admit(scope), scope, request, respond, *args, **kwargs)
        try:
            row: Row = guard[0](key, cost)
        except StoreError as error:
            scope = create_scope(request)
            return self._pass_on_ruled(gate.rule_undecided(scope, error), scope, request, respond, *args, **kwargs)
        allowed, remaining, _, reset_after_ns, delay_ns = row
        if not allowed or (delay_ns and cost):
            scope = create_scope(request)
            ruling = gate.rule_decided(scope, guard, key, cost, row)
            return self._pass_on_ruled(ruling, scope, request, respond, *args, **kwargs)
        counts.admitted += 1
        request.ratelimit = Decision(*row)
        response = respond(*args, **kwargs)
        seconds = -(-reset_after_ns // NS_PER_S)
        fields = cache.get((remaining, seconds))
        if fields is None:
            if len(cache) >= MAX_CACHED_HEADERS:
                cache.clear()
            fields = cache[remaining, seconds] = decode_lists(guard[3](remaining, seconds, False))
        join_lists(response.headers, fields)
        return response

    def _pass_on_ruled(
        self, ruling: Ruling, scope: Scope, request: Any, respond: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Return the response to a request as ruled."""
        if ruling.answer is not None:
            return create_response(request, ruling.answer)
        if ruling.decision is None:
            return respond(*args, **kwargs)
        request.ratelimit = ruling.decision
        gate = self.find_blocking()
        if not gate.refunds:
            response = respond(*args, **kwargs)
        else:
            try:
                response = respond(*args, **kwargs)
            except Exception as error:
                gate.settle_now(scope, ruling, find_status(error))
                raise
            gate.settle_now(scope, ruling, response.status_code)
        join_fields(response.headers, ruling.fields)
        return response

    async def pass_on_awaiting(self, request: Any, respond: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the response to a request as `pass_on` does; await `respond`, and the limiter under ASGI."""
        in_loop = is_asgi(request)
        gate: Any = self.find_awaiting() if in_loop else self.find_blocking()
        if self._loads_user:
            await load_user(request)
        scope = create_scope(request)
        ruling = await gate.admit(scope) if in_loop else gate.admit(scope)
        if ruling.answer is not None:
            return create_response(request, ruling.answer)
        if ruling.decision is None:
            return await respond(*args, **kwargs)
        request.ratelimit = ruling.decision
        if not gate.refunds:
            response = await respond(*args, **kwargs)
        else:
            try:
                response = await respond(*args, **kwargs)
            except Exception as error:
                await gate.settle(scope, ruling, find_status(error))
                raise
            await gate.settle(scope, ruling, response.status_code)
        join_fields(response.headers, ruling.fields)
        return response


class RateLimitMiddleware:
    """Limit the requests of each client: list `ratelab.django.RateLimitMiddleware` in `MIDDLEWARE`.

    The setting `RATELAB` has the limits, such as `{"RATE": "5/minute"}`; the page `django` of the manual explains it.
    `request.ratelimit` is the `Decision` on a request that was limited. Raise `ImproperlyConfigured` for invalid
    settings.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response
        self._door = Door(read_options, Place(settings.ROOT_URLCONF))
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)
            self._door.find_awaiting()
        else:
            self._door.find_blocking()

    def __call__(self, request: Any) -> Any:
        """Return the response to a request, or a coroutine that does."""
        if self._awaits:
            return self._door.pass_on_awaiting(request, self.get_response, request)
        return self._door.pass_on(request, self.get_response, request)
