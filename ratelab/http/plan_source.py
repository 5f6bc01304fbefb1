"""The plan of a request: from a header, a mapping or a function, which may be asynchronous."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import isawaitable
from threading import RLock
from time import monotonic
from typing import Any, NamedTuple

from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Scope
from ratelab.http.identity import AmbiguousClientError, Identity, header_field, read_header
from ratelab.http.scope_functions import invalid_result
from ratelab.quota import NS_PER_S
from ratelab.stores.sleepers import running_trio

ON_PLAN_ERROR = {"default": "the default plan applies", "closed": "the request is answered 503"}
"""What happens to a request whose plan cannot be found."""

PLAN_LIFETIME_S = 60.0
"""Seconds for which the result of a function is kept."""

RETRY_INTERVAL_S = 1.0
"""Seconds after which a function that failed is called again for the same client."""

WARNING_INTERVAL_S = 60.0
"""Seconds between two warnings about plans, at least."""

MAX_CACHED_PLANS = 10_000
"""Clients whose plans are kept."""

AnyPlanSource = str | Mapping[str, str] | Callable[[Scope], Any]
"""`header:NAME`, the plans of clients, or a function of the scope, which is awaited if it is asynchronous."""

_RULE = "plan must be header:NAME, a mapping of clients or a function of the request"

_log = logging.getLogger("ratelab.http")


def check_plan_errors(on_plan_error: object, plan_timeout: object) -> None:
    """Raise `InputError` for an invalid choice or time-out."""
    if not isinstance(on_plan_error, str) or on_plan_error not in ON_PLAN_ERROR:
        got = short_repr(on_plan_error)
        raise InputError(f"on_plan_error must be one of {', '.join(ON_PLAN_ERROR)}, got {got}")
    if isinstance(plan_timeout, bool) or not isinstance(plan_timeout, int | float) or not plan_timeout > 0:
        raise InputError(f"plan_timeout must be a number of seconds above 0, got {short_repr(plan_timeout)}")


class PlanError(Exception):
    """The plan of a request was not found, and `on_plan_error` is `closed`."""

    retry_after_ns = int(RETRY_INTERVAL_S * NS_PER_S)


class Answer(NamedTuple):
    """The plan of a client, as a function returned it."""

    expires: float
    """Time in seconds at which the function is called again."""
    plan: str | None
    failed: bool


class PlanSource:
    """Find the plan of each request.

    The source is `header:NAME`, whose value only the authentication layer may set, a mapping of clients to plans, or a
    function of the scope. Without a header, an entry or a result other than None, the plan is `default_plan`.

    A function is called once for each client, with at most `plan_timeout` seconds for a result that is awaited; it is
    kept for `PLAN_LIFETIME_S`. If it raises, hangs or returns an unknown plan, `on_plan_error` applies, and the
    function is called again after `RETRY_INTERVAL_S`. A function that blocks the event loop cannot be stopped.

    Raise `InputError` for an invalid argument; `check_plan_errors` has checked `on_plan_error` and `plan_timeout`.
    """

    def __init__(
        self,
        source: AnyPlanSource | None,
        default_plan: str | None,
        on_plan_error: str,
        plan_timeout: float,
        identity: Identity,
        plans: Iterable[str],
    ) -> None:
        self._plans = {*plans}
        self._default = default_plan
        self._closed = on_plan_error == "closed"
        self._timeout = plan_timeout
        self._function: Callable[[Scope], Any] | None = None
        self._field = b""
        self._plan_of: Mapping[str, str] = {}
        if callable(source):
            self._function = source
        elif isinstance(source, str):
            self._field = header_field(source, _RULE)
        elif isinstance(source, Mapping):
            if not all(isinstance(client, str) for client in source):
                raise InputError(f"{_RULE}; clients must be text, got {short_repr(source)}")
            self._plan_of = {identity.key_of(client): plan for client, plan in source.items()}
        elif source is not None:
            raise InputError(f"{_RULE}, got {short_repr(source)}")
        for plan in (*self._plan_of.values(), *([] if default_plan is None else [default_plan])):
            if not self._is_known(plan):
                known = ", ".join(map(str, self._plans))
                remedy = f"choose one of {known}" if known else "give the limiter plans"
                raise InputError(f"unknown plan {short_repr(plan)}: {remedy}")
        self.may_find_plans = source is not None or default_plan is not None
        """Whether a request may have a plan."""
        self._answers: dict[str, Answer] = {}  # by client, oldest first
        self._lock = RLock()
        self._calls: dict[str, asyncio.Task[None]] = {}  # that requests of the same client wait for together
        self._next_warning = 0.0

    async def find(self, scope: Scope, key: str) -> str | None:
        """Return the plan of a request by the client `key`, None for none; raise `PlanError` if it is not found."""
        if self._function is not None:
            return await self._ask(self._function, scope, key)
        if not self._field:
            return self._plan_of.get(key, self._default)
        try:
            value = read_header(scope, self._field).decode("latin-1")
        except AmbiguousClientError as error:
            return self._use(self._fail(error))
        return self._use(self._check(value or None))

    async def _ask(self, function: Callable[[Scope], Any], scope: Scope, key: str) -> str | None:
        """Return the plan that the function gave for a client; call it if that was too long ago."""
        answer = self._answers.get(key)
        if answer is not None and monotonic() < answer.expires:
            return self._use(answer)
        call = self._calls.get(key)
        if call is None or call.done() or call.get_loop() is not asyncio.get_running_loop():
            try:
                result = function(scope)
            except Exception as error:
                return self._use(self._keep(key, self._fail(error)))
            if not isawaitable(result):
                return self._use(self._keep(key, self._check(result)))
            if running_trio() is not None:
                raise invalid_result("a plan function on Trio must return text or None", result, "it needs asyncio")
            call = self._calls[key] = asyncio.ensure_future(self._await(result, key))
        await asyncio.wait({call}, timeout=self._timeout)
        if not call.done():
            call.cancel()
            self._keep(key, self._fail(TimeoutError(f"no result after {self._timeout:g} s")))
        return self._use(self._answers.get(key) or self._fail(RuntimeError("the call was cancelled")))

    async def _await(self, result: Awaitable[Any], key: str) -> None:
        """Keep the result of an asynchronous function."""
        try:
            answer = self._check(await result)
        except Exception as error:
            answer = self._fail(error)
        finally:
            self._calls.pop(key, None)
        self._keep(key, answer)

    def _keep(self, key: str, answer: Answer) -> Answer:
        with self._lock:
            self._answers.pop(key, None)
            if len(self._answers) >= MAX_CACHED_PLANS:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = answer
        return answer

    def _is_known(self, plan: object) -> bool:
        return isinstance(plan, str) and plan in self._plans

    def _check(self, plan: object) -> Answer:
        """Return the answer for the name of a plan, or None for the default one."""
        if plan is not None and not self._is_known(plan):
            return self._fail(InputError(f"unknown plan {short_repr(plan)}"))
        return Answer(monotonic() + PLAN_LIFETIME_S, self._default if plan is None else str(plan), False)

    def _fail(self, error: Exception) -> Answer:
        """Log a warning unless there has just been one, and return the answer of a failure."""
        now = monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_INTERVAL_S
            meanwhile = ON_PLAN_ERROR["closed" if self._closed else "default"]
            _log.warning("no plan was found (%s: %s); %s", type(error).__name__, error, meanwhile)
        return Answer(now + RETRY_INTERVAL_S, self._default, True)

    def _use(self, answer: Answer) -> str | None:
        """Return the plan of an answer; raise `PlanError` after a failure if `on_plan_error` is `closed`."""
        if answer.failed and self._closed:
            raise PlanError
        return answer.plan
