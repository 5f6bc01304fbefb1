"""Django middleware, and the door behind it: the gates of a limit, and the way of a request through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.signals import setting_changed

from ratelab.django.responses import (
    create_response,
    create_scope,
    find_status,
    is_asgi,
    is_denied,
    join_fields,
    load_user,
    note_denial,
)
from ratelab.django.settings import InvalidSettingError, Options, Place, create_gate, may_read_user, read_options
from ratelab.errors import InputError
from ratelab.http.doors import AwaitingGate, BlockingGate
from ratelab.http.headers import decode_fields
from ratelab.http.responses import decode_denial

_WATCHED = ("RATELAB", "SECRET_KEY", "REST_FRAMEWORK")


TEST_SERVER = "testserver"
"""The server of requests that the tests of a project make, which claims to have several processes."""


class ThreadGate(BlockingGate):
    """A gate for requests that block a thread."""

    def has_processes(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the server of a request has several processes."""
        return super().has_processes(environ) and environ.get("SERVER_NAME") != TEST_SERVER


class Door:
    """Pass requests on unless a limit denies them.

    `collect` returns the options of the limit. Its gates are created on first use, and again with new quotas after an
    override of the settings.
    """

    def __init__(self, collect: Callable[[], Options], place: Place) -> None:
        self.collect = collect
        self.place = place
        self._lock = Lock()
        self._blocking: BlockingGate | None = None
        self._awaiting: AwaitingGate | None = None
        self._loads_user = False
        setting_changed.connect(self._follow)

    def find_blocking(self) -> BlockingGate:
        """Return the gate for requests that block a thread; raise `InvalidSettingError` for an invalid option."""
        gate = self._blocking
        if gate is None:
            with self._lock:
                gate = self._blocking = self._blocking or self._create(ThreadGate)
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
            options = self.collect()
            self._loads_user = may_read_user(options)
            return create_gate(options, kind, self.place)
        except InputError as error:
            raise InvalidSettingError(f"{self.place.what}: {error}") from None

    def _follow(self, *, setting: str, **_: object) -> None:
        """Create the gates again after a change of a setting, as in a test."""
        if setting in _WATCHED:
            self._blocking = self._awaiting = None

    def pass_on(self, request: Any, respond: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the response to a request, after its delay: that of `respond(*args)`, unless it is denied."""
        gate = self._blocking or self.find_blocking()
        peer = request.META.get("REMOTE_ADDR", "")
        decision, fields, denial, ruled = gate.admit_from(request, create_scope, peer, request.method)
        if decision is not None or not hasattr(request, "ratelimit"):
            request.ratelimit = decision
        if denial is not None:
            note_denial(request)
            return create_response(request, denial)
        if decision is None:
            return respond(*args, **kwargs)
        scope, ruling = ruled or (None, None)
        try:
            response = respond(*args, **kwargs)
        except Exception as error:
            if is_denied(request):
                gate.refund_now(scope or create_scope(request), ruling)
            elif ruled is not None and gate.refunds:
                gate.settle_now(*ruled, find_status(error))
            raise
        if is_denied(request):
            fields = gate.withdraw_now(scope or create_scope(request), ruling)
        elif ruled is not None and gate.refunds:
            gate.settle_now(*ruled, response.status_code)
        join_fields(response.headers, fields)
        return response

    async def pass_on_awaiting(self, request: Any, respond: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the response to a request as `pass_on` does; await `respond`, and the limiter under ASGI."""
        in_loop = is_asgi(request)
        gate: Any = self.find_awaiting() if in_loop else self.find_blocking()
        if self._loads_user:
            await load_user(request)
        scope = create_scope(request)
        ruling = await gate.admit(scope) if in_loop else gate.admit(scope)
        if ruling.decision is not None or not hasattr(request, "ratelimit"):
            request.ratelimit = ruling.decision
        if ruling.answer is not None:
            note_denial(request)
            return create_response(request, decode_denial(ruling.answer))
        if ruling.decision is None:
            return await respond(*args, **kwargs)
        try:
            response = await respond(*args, **kwargs)
        except Exception as error:
            if is_denied(request):
                await gate.refund_request(scope, ruling)
            else:
                await gate.settle(scope, ruling, find_status(error))
            raise
        fields = ruling.fields
        if is_denied(request):
            fields = await gate.withdraw(scope, ruling)
        else:
            await gate.settle(scope, ruling, response.status_code)
        join_fields(response.headers, decode_fields(fields))
        return response


class RateLimitMiddleware:
    """Limit the requests of each client: list `ratelab.django.RateLimitMiddleware` in `MIDDLEWARE`.

    The setting `RATELAB` has the limits, such as `{"RATE": "5/minute"}`; the page `django` of the manual explains it.
    `request.ratelimit` is the `Decision` on a request, None if it is exempt. Raise `ImproperlyConfigured` for invalid
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
