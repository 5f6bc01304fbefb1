"""Limits for the calls of any function: `@limited(limiter)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from inspect import (
    isasyncgenfunction,
    isawaitable,
    isclass,
    iscoroutinefunction,
    isgeneratorfunction,
    isroutine,
    unwrap,
)
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from ratelab.errors import InputError, RateLimitExceeded, StoreError, short_repr
from ratelab.limiter import AsyncLimiter, Costs, Decision, Keys, Limiter
from ratelab.stores.arguments import name_costs, name_keys, parse_timeout
from ratelab.stores.forecast import may_queue
from ratelab.stores.sleepers import in_event_loop
from ratelab.stores.waiting import Waiting

if TYPE_CHECKING:
    from asyncio import Future

P = ParamSpec("P")
T = TypeVar("T")

OnDeny = str | Callable[..., Any]
"""The reaction to a denial: `raise`, `wait`, or a function whose result the call returns."""

_refunds: set[Future[None]] = set()  # which the loop alone would not keep


class Decorator(Protocol):
    """A decorator that keeps the type of a function."""

    def __call__(self, function: Callable[P, T], /) -> Callable[P, T]:
        """Return the limited function."""
        ...


def limited(
    limiter: Limiter | AsyncLimiter,
    key: Keys | Callable[..., Keys] | None = None,
    cost: Costs | Callable[..., Costs] = 1,
    *,
    on_deny: OnDeny = "raise",
    timeout: float | None = None,
    plan: str | Callable[..., str | None] | None = None,
) -> Decorator:
    """Limit the calls of a function or a method, synchronous or asynchronous, and keep its type.

    `key`, `cost` and `plan` are those of `hit`, or functions that return them for the arguments of a call, `self`
    among them. Without a `key`, all calls of the function have one: its module and qualified name.

    `on_deny` chooses the reaction to a denial:

    * `raise`: the call raises `RateLimitExceeded`.
    * `wait`: the call waits for its turn, as `limiter.wait` does, for at most `timeout` seconds.
    * A function: the call returns `on_deny(decision, *arguments)`, after waiting for at most `timeout` seconds if one
      is given. For an asynchronous function, an awaitable result is awaited.

    A call that a leaky bucket admits with a delay sleeps before the function runs; if it is cancelled or interrupted
    meanwhile, it is refunded. Raises `InputError` for invalid arguments; when it decorates a generator, a class, a
    synchronous function with an asynchronous limiter, or an asynchronous one with a limiter that blocks; and when a
    synchronous function would have to sleep in an event loop.
    """
    _check_options(limiter, on_deny, timeout)
    _check_constants(limiter, key, cost, plan)

    def decorate(function: Callable[..., Any]) -> Any:
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(decorate(function.__func__))
        name = _check_function(function)
        is_async = iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
        _check_limiter(limiter, name, is_async=is_async)
        call = _Call(limiter, name if key is None else key, cost, plan, on_deny, timeout)
        return call.limit_coroutine(function) if is_async else call.limit_function(function)

    return decorate


class _Call:
    """The admission of the calls of one function; a denial is returned only if it is to be passed to a function."""

    def __init__(self, limiter: Any, key: Any, cost: Any, plan: Any, on_deny: OnDeny, timeout: float | None) -> None:
        self._limiter = limiter
        self._waiting: Waiting = getattr(limiter, "waiting", None) or Waiting()
        self._key, self._cost, self._plan = key, cost, plan
        self._on_deny: Any = on_deny
        self._raises = isinstance(on_deny, str)
        self._waits = on_deny == "wait" or timeout is not None
        self._timeout = timeout

    def limit_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a synchronous function behind the limit."""

        @wraps(function)
        def call_in_thread(*arguments: Any, **named: Any) -> Any:
            denial = self.admit_in_thread(arguments, named)
            return function(*arguments, **named) if denial is None else self._on_deny(denial, *arguments, **named)

        return call_in_thread

    def limit_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return an asynchronous function behind the limit."""

        @wraps(function)
        async def call_in_task(*arguments: Any, **named: Any) -> Any:
            denial = await self.admit_in_task(arguments, named)
            if denial is None:
                return await function(*arguments, **named)
            result = self._on_deny(denial, *arguments, **named)
            return await result if isawaitable(result) else result

        return call_in_task

    def admit_in_thread(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Decision | None:
        """Admit a call, or return its denial."""
        key, cost, options = self._evaluate(arguments, named)
        if (self._waits or may_queue(self._limiter.policies)) and in_event_loop():
            raise InputError("a call that may sleep would block the event loop: limit an async function instead")
        try:
            if self._waits:
                self._limiter.wait(key, cost, self._timeout, **options)
                return None
            decision = self._check(self._limiter.hit(key, cost, **options), key)
        except RateLimitExceeded as error:
            return self._return_denial(error)
        if decision.delay_ns:
            with self._refunding(key, cost, decision):
                self._waiting.pause(decision.delay_ns)
        return None

    async def admit_in_task(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Decision | None:
        """Admit a call, or return its denial."""
        key, cost, options = self._evaluate(arguments, named)
        try:
            if self._waits:
                await self._limiter.wait(key, cost, self._timeout, **options)
                return None
            decision = self._limiter.hit(key, cost, **options)
            decision = self._check(await decision if isawaitable(decision) else decision, key)
        except RateLimitExceeded as error:
            return self._return_denial(error)
        if decision.delay_ns:
            with self._refunding(key, cost, decision):
                await self._waiting.pause_async(decision.delay_ns)
        return None

    def _evaluate(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Return the key, the cost and the plan of a call."""
        key, cost, plan = (
            given(*arguments, **named) if callable(given) else given for given in (self._key, self._cost, self._plan)
        )
        return key, cost, {} if plan is None else {"plan": plan}

    def _check(self, decision: Decision, key: Keys) -> Decision:
        if not decision.allowed:
            raise RateLimitExceeded(decision, key)
        return decision

    @contextmanager
    def _refunding(self, key: Keys, cost: Costs, decision: Decision) -> Iterator[None]:
        """Refund a call if an exception ends its delay, such as the cancellation of its task."""
        try:
            yield
        except BaseException:
            refund = getattr(self._limiter, "refund", None)
            if refund is not None:
                uncharged = dict.fromkeys(decision.shadow, 0)
                _refund(refund, key, name_costs(self._limiter.policies, cost) | uncharged if uncharged else cost)
            raise

    def _return_denial(self, error: RateLimitExceeded) -> Decision:
        if self._raises:
            raise error
        return error.decision


def _refund(refund: Callable[[Keys, Costs], Any], key: Keys, cost: Costs) -> None:
    """Refund a call; if it is to be awaited, without the task of the call, which has been cancelled."""
    with suppress(StoreError):
        result = refund(key, cost)
        if isawaitable(result):
            from asyncio import ensure_future  # slow to import where only threads call

            task = ensure_future(_await_refund(result))
            _refunds.add(task)
            task.add_done_callback(_refunds.discard)


async def _await_refund(result: Awaitable[Any]) -> None:
    with suppress(StoreError):
        await result


def _check_options(limiter: Any, on_deny: Any, timeout: float | None) -> None:
    """Raise `InputError` for an invalid limiter, reaction or time-out."""
    if isinstance(limiter, type) or not callable(getattr(limiter, "hit", None)):
        remedy = ": write @limited(limiter)" if isroutine(limiter) else ""
        raise InputError(f"limiter must be a limiter, such as a MemoryLimiter, got {short_repr(limiter)}{remedy}")
    if on_deny not in ("raise", "wait") and not callable(on_deny):
        raise InputError(f"on_deny must be raise, wait or a function, got {short_repr(on_deny)}")
    parse_timeout(timeout)
    if timeout is not None and on_deny == "raise":
        raise InputError(f"timeout must not be given with on_deny='raise', got {timeout}: use on_deny='wait'")
    if (on_deny == "wait" or timeout is not None) and not callable(getattr(limiter, "wait", None)):
        raise InputError(f"{type(limiter).__name__} has no wait: use a limiter such as MemoryLimiter")


def _check_constants(limiter: Any, key: Any, cost: Any, plan: Any) -> None:
    """Raise `InputError` for a key, a cost or a plan that is neither valid for `hit` nor a function."""
    if key is not None and not callable(key):
        name_keys(limiter.policies, key)
    if not callable(cost):
        name_costs(limiter.policies, cost)
    if plan is not None and not isinstance(plan, str) and not callable(plan):
        raise InputError(f"plan must be the name of a plan or a function, got {short_repr(plan)}")


def _check_function(function: Any) -> str:
    """Return the default key of a function; raise `InputError` for one that cannot be limited."""
    if not callable(function):
        raise InputError(f"limited must decorate a function, got {short_repr(function)}: decorate the function itself")
    if isclass(function):
        raise InputError(f"limited must decorate a function, got a class: decorate {function.__name__}.__init__")
    original = unwrap(function)
    original = getattr(original, "func", original)  # of a functools.partial
    name = f"{getattr(original, '__module__', None)}.{getattr(original, '__qualname__', type(original).__qualname__)}"
    if isgeneratorfunction(original) or isasyncgenfunction(original):
        raise InputError(f"limited cannot decorate the generator {name}: its call runs nothing; limit its consumer")
    return name


def _check_limiter(limiter: Any, name: str, *, is_async: bool) -> None:
    kind = type(limiter).__name__
    if iscoroutinefunction(limiter.hit) and not is_async:
        raise InputError(f"{kind} must be awaited, and {name} is not asynchronous: use a limiter that blocks")
    if getattr(limiter, "blocking", False) and is_async:
        better = "ResilientLimiter" if "Resilient" in kind else "AsyncValkeyLimiter"
        raise InputError(f"{kind} would block the event loop of {name}: use {better}")
