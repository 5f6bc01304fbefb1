"""Gates for doors other than the ASGI middleware: those that block a thread for each request, and those that await."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypedDict, Unpack
from weakref import WeakSet

from ratelab.algorithms import Policy
from ratelab.errors import InputError, StoreError, short_repr
from ratelab.http.asgi import Field, Scope
from ratelab.http.counters import Counts
from ratelab.http.delayed_admission import NS_PER_MS
from ratelab.http.environ import ENVIRON
from ratelab.http.gate import Gate, GateArguments, takes_subject
from ratelab.http.headers import TextFields, decode_fields, join_legacy
from ratelab.http.identity import AmbiguousClientError, Identity
from ratelab.http.policy_rules import AnyLimiter
from ratelab.http.responses import Ruling, TextDenial, create_decision, decode_denial
from ratelab.http.scope_functions import check_bool, unknown_argument
from ratelab.limiter import NEVER, Decision
from ratelab.quota import NS_PER_S
from ratelab.stores.arguments import MAX_NAME_CHARS, check_limits, check_max_keys
from ratelab.stores.blocking_resilient import run_now
from ratelab.stores.fallback import check_on_store_error
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.sleepers import running_trio

DEFAULT_ALGORITHM = "token-bucket"
"""The algorithm of limits that are given as text."""

MAX_DELAY_S = 10
"""Seconds for which a door holds a thread, by default."""

_log = logging.getLogger("ratelab.http")

_sharing: dict[tuple[str, bool], WeakSet[Any]] = {}
"""The limiters in each store that share their connections, by its URL and whether they block."""

Limits = str | Policy | Sequence[str | Policy] | AnyLimiter | Callable[[Any], AnyLimiter]
"""Limits of a door: rates such as `5/minute`, policies, a limiter, or a function that returns one."""


class StoreOptions(TypedDict, total=False):
    """Options of a door that creates its limiter; `choose_store` explains them."""

    store: str | None
    on_store_error: str
    deadline: float
    max_keys: int


class DoorArguments(GateArguments, StoreOptions, total=False):
    """Arguments of a door that creates its limiter."""


def take_store_options(arguments: Any) -> dict[str, Any]:
    """Remove the options of a store from the arguments of a door, and return them.

    Raise `TypeError` for an argument that no door has.
    """
    known = DoorArguments.__annotations__.keys()
    if unknown := arguments.keys() - known:
        raise unknown_argument(min(unknown), known - {"file"} | {"name"})
    return {name: arguments.pop(name) for name in StoreOptions.__annotations__ if name in arguments}


def create_limiter(
    limits: Limits, store: str | None = None, name: str | None = None, blocking: bool = False, **options: Any
) -> AnyLimiter | Callable[[Any], AnyLimiter]:
    """Return the limiter of a door: in memory, or in a store.

    Rates are granted by token buckets, which are named after them; `name` precedes the names, so that limits of the
    same rate do not share a quota in a store. A limiter is returned as it is. Raise `InputError` for an invalid
    argument.
    """
    create = choose_store(blocking, store=store, **options)
    check_name(name)
    given: list[Any] = [*limits] if isinstance(limits, Sequence) and not isinstance(limits, str) else [limits]
    if not given or not all(isinstance(limit, str | Policy) for limit in given):
        if store is None and len(given) == 1 and (callable(given[0]) or hasattr(given[0], "hit")):
            return given[0]  # type: ignore[no-any-return]
        kinds = " or policies in a store" if store else ", policies or one limiter"
        raise InputError(f"limits must be rates such as '5/minute'{kinds}, got {short_repr(limits)}")
    return create([_create_policy(limit, name) if isinstance(limit, str) else limit for limit in given])


def choose_store(
    blocking: bool,
    name: str | None = None,
    *,
    store: str | None = None,
    on_store_error: str = "local",
    deadline: float | None = None,
    max_keys: int = 1_000_000,
) -> Callable[..., AnyLimiter]:
    """Return the function that creates limiters of policies: in memory or, under a `name`, in the store at a URL.

    The limiter of a door that is not `blocking` is awaited if it is in a store. While the store is down, requests are
    decided as `on_store_error` says for a `ResilientLimiter`. A decision has `deadline` seconds, by default those of
    the limiter. At most `max_keys` keys are kept in memory. Limiters share the connections to their store. Raise
    `InputError` for an invalid argument, also for one that is of no use without a store.
    """
    check_name(name)
    check_on_store_error(on_store_error)
    given: Any = {} if deadline is None else {"deadline": deadline}
    check_limits(**given)
    check_max_keys(max_keys)
    if store is None:
        return partial(MemoryLimiter, max_keys=max_keys)
    from ratelab.stores.blocking_resilient import BlockingResilientLimiter
    from ratelab.stores.resilient import ResilientLimiter
    from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
    from ratelab.stores.valkey.connection import StoreUrl

    StoreUrl(store, asynchronous=not blocking)  # checks it
    kind: Any = ValkeyLimiter if blocking else AsyncValkeyLimiter
    resilient: Any = BlockingResilientLimiter if blocking else ResilientLimiter

    def connect(policies: Sequence[Policy], **changes: Any) -> AnyLimiter:
        sharing = _sharing.setdefault((store, blocking), WeakSet())
        limiter = kind(next(iter(sharing), store), policies, name=name, **given, **changes)
        sharing.add(limiter)
        return resilient(limiter, on_store_error, max_keys=max_keys)  # type: ignore[no-any-return]

    return connect


def check_name(name: str | None) -> None:
    """Raise `InputError` unless the name of a limit is None or text."""
    if name is not None and (not isinstance(name, str) or not name):
        raise InputError(f"name must be text such as 'search', got {short_repr(name)}")
    if name is not None and len(name) > MAX_NAME_CHARS:
        raise InputError(f"name must have at most {MAX_NAME_CHARS} characters, got {len(name)}: choose a shorter one")


def _create_policy(rate: str, name: str | None) -> Policy:
    return Policy.create(DEFAULT_ALGORITHM, rate, name=rate if name is None else f"{name} {rate}")


Admission = tuple[Decision | None, Sequence[tuple[str, str]], TextDenial | None, tuple[Scope, Ruling] | None]
"""The decision on a request, the fields to add to the response, and the response to a request that is not passed on.

The last item is the scope of a request and the ruling on it, for `settle_now` and `refund_now`, if it has a scope.
"""


class BlockingGate(Gate):
    """A gate for a door that blocks a thread for each request.

    A request that would be delayed by more than `max_delay` seconds, by default `MAX_DELAY_S`, is refunded and denied.
    Raise `InputError` for a limiter or a plan that is awaited.
    """

    blocking = True
    default_max_delay_ns = MAX_DELAY_S * NS_PER_S

    def __init__(
        self,
        limiter: AnyLimiter | Policy | list[Policy] | tuple[Policy, ...] | Callable[[Any], AnyLimiter],
        subject: str | None = None,
        **arguments: Unpack[GateArguments],
    ) -> None:
        self._checks_processes = isinstance(limiter, MemoryLimiter | Policy | list | tuple)
        super().__init__(limiter, subject=subject, **arguments)
        key: Any = arguments.get("key", "ip")
        key = key.key if isinstance(key, Identity) else key
        self._read_name: Callable[[Any], Any] | None = None
        """The function of the subject that identifies clients."""
        self._known_keys: Any = {} if self._identity.keys_by_peer is None else self._identity.keys_by_peer
        """Keys of known peers whose requests need no scope."""
        exempt: Any = arguments.get("exempt")
        self._exempts: Callable[[Any], Any] | None = exempt if takes_subject(exempt) else None
        """The function of the subject that exempts requests."""
        self._needs_no_scope = self._is_plain and (self._exempt is None or self._exempts is not None)
        if takes_subject(key):
            self._read_name, self._known_keys = key, self._identity.keys_by_address

    def admit(self, scope: Scope) -> Ruling:
        """Decide what to do with an HTTP request, after its delay; count it."""
        self._check_processes(scope)
        return self._hold(scope, run_now(self.rule(scope)))

    def admit_from(
        self, subject: Any, create_scope: Callable[[Any], Scope], peer: object, method: str | None
    ) -> Admission:
        """Admit a request from a peer as `admit` does; create its scope from `subject` only if that is needed.

        Functions of the request take the subject.
        """
        guard, scope = self._guard, None
        if guard is None or not self._needs_no_scope:
            return self._admit_slowly(create_scope(subject))
        if self._exempts is not None and check_bool("exempt", self._exempts(subject)):
            return None, (), None, None
        key, find_key = None, self._find_key
        if self._read_name is not None:
            key, find_key = self._identity.find_named(self._read_name(subject)), self._identity.find_address
        if key is None:
            key = self._known_keys.get(peer)
        if key is None or self._checks_processes:
            scope = create_scope(subject)
            self._check_processes(scope)
            try:
                key = key or find_key(scope)
            except AmbiguousClientError:
                return self._admit_slowly(scope)
        cost = self._cost
        try:
            row = guard.decide(key, cost)
        except StoreError as error:
            return self._finish_slowly(scope or create_scope(subject), self._rule_undecided(error))
        allowed, remaining, retry_after_ns, reset_after_ns, delay_ns = row
        if allowed and not (delay_ns and cost):
            self.counts.admitted += 1
            fields = guard.format_text(remaining, -(-reset_after_ns // NS_PER_S))
            return create_decision((*row, None, ())), fields, None, None
        if allowed or self._on_denied is not None or retry_after_ns == NEVER:
            scope = scope or create_scope(subject)
            return self._finish_slowly(scope, self._rule_decided(scope, guard, key, cost, row))
        self.counts.denied += 1
        self.offenders.add(key)
        status, fields, body = guard.deny_text(retry_after_ns)
        denial = status, fields, b"" if method == "HEAD" else body
        return create_decision((*row, guard.name, ())), (), denial, None

    def _check_processes(self, scope: Scope) -> None:
        """Warn, at the first request, if each process has its own quota."""
        if self._checks_processes:
            self._checks_processes = False
            if self.has_processes(scope.get(ENVIRON, {})):
                _warn_of_processes()

    def has_processes(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the server of a request has several processes."""
        return bool(environ.get("wsgi.multiprocess"))

    def _admit_slowly(self, scope: Scope) -> Admission:
        return self._describe(scope, self.admit(scope))

    def _finish_slowly(self, scope: Scope, ruling: Ruling) -> Admission:
        return self._describe(scope, self._hold(scope, ruling))

    def _describe(self, scope: Scope, ruling: Ruling) -> Admission:
        """Return the ruling on a request as an admission."""
        if ruling.answer is None:
            return ruling.decision, decode_fields(ruling.fields), None, (scope, ruling)
        return ruling.decision, (), decode_denial(ruling.answer), None

    def _hold(self, scope: Scope, ruling: Ruling) -> Ruling:
        """Hold the thread of a request for its delay, or deny it; count it."""
        if ruling.delay_ns:
            ruling = run_now(self.bound_delay(ruling))
        if ruling.delay_ns:
            with _count_delay(self.counts):
                time.sleep(_round_up(ruling.delay_ns))
        return finish(self, scope, ruling)

    def refund_now(self, scope: Scope, ruling: Ruling | None = None) -> None:
        """Refund an admitted request."""
        run_now(self.refund_request(scope, ruling))

    def withdraw_now(self, scope: Scope, ruling: Ruling | None = None) -> TextFields:
        """Refund an admitted request that an inner limit has denied, and return header fields as `withdraw` does."""
        return decode_fields(run_now(self.withdraw(scope, ruling)))

    def settle_now(self, scope: Scope, ruling: Ruling, status: int) -> None:
        """Refund an admitted request unless it stays charged by `charge`."""
        run_now(self.settle(scope, ruling, status))


class AwaitingGate(Gate):
    """A gate for a door that awaits the decision on each request."""

    async def admit(self, scope: Scope) -> Ruling:
        """Decide what to do with an HTTP request, after its delay; count it."""
        return await self._hold(scope, await self.rule(scope))

    async def _hold(self, scope: Scope, ruling: Ruling) -> Ruling:
        """Hold a request for its delay, or deny it; count it."""
        if ruling.delay_ns:
            ruling = await self.bound_delay(ruling)
        if ruling.delay_ns:
            with _count_delay(self.counts):
                await (running_trio() or asyncio).sleep(_round_up(ruling.delay_ns))
        return finish(self, scope, ruling)


@cache
def _warn_of_processes() -> None:
    """Log a warning, once in a process."""
    _log.warning(
        "each process of the server has its own quota in memory, so clients are granted several times the limit: "
        "use a store, by a limiter such as ValkeyLimiter, the option store or the setting STORE"
    )


@contextmanager
def _count_delay(counts: Counts) -> Iterator[None]:
    """Count a request that is delayed during the block, or dropped if the block raises an exception."""
    counts.waiting += 1
    try:
        yield
    except BaseException:
        counts.dropped += 1
        raise
    finally:
        counts.waiting -= 1
    counts.delayed += 1


def finish(gate: Gate, scope: Scope, ruling: Ruling) -> Ruling:
    """Count an admitted request; leave out the body of a response to HEAD."""
    if ruling.answer is None:
        gate.counts.admitted += ruling.decision is not None
    elif scope["method"] == "HEAD":
        status, fields, _ = ruling.answer
        return ruling._replace(answer=(status, fields, b""))
    return ruling


def _round_up(delay_ns: int) -> float:
    """Return a delay in seconds, rounded up to milliseconds."""
    return -(-delay_ns // NS_PER_MS) / 1000


# --- responses with header fields as text


def merge_fields(present: Iterable[tuple[str, str]], added: Iterable[Field]) -> TextFields:
    """Append the fields of a ruling to those of a response, so that one set of `X-RateLimit-*` is left."""
    present = [*present]
    if not any(name.lower().startswith("x-ratelimit-") for name, _ in present):
        return [*present, *decode_fields(added)]
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in present]
    return decode_fields(join_legacy(fields, added))
