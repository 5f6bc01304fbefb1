"""The gate of a door: it decides requests by a limiter, and what the door does with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from ratelab.algorithms import Policy
from ratelab.errors import InputError, StoreError, short_repr, warn_of_configuration
from ratelab.http.asgi import Field, Scope
from ratelab.http.counters import Counts
from ratelab.http.guard import Guard, GuardFinder, check_limiter, create_guard, follow_updates
from ratelab.http.headers import HeaderWriter, ceil_seconds, format_string
from ratelab.http.identity import SECRET, AmbiguousClientError, Identity
from ratelab.http.offenders import Offenders
from ratelab.http.plan_source import AnyPlanSource, check_plan_errors
from ratelab.http.policy_guard import ChargeHook, PolicyGuard, PolicyOptions, await_store, look, prepare, refund
from ratelab.http.policy_rules import AnyLimiter, check_account, find_plans, needs_rules
from ratelab.http.responses import (
    NOT_LIMITED,
    DenialHook,
    Ruling,
    build_denial,
    build_unavailable,
    problem,
    read_denial,
)
from ratelab.http.scope_functions import (
    RouteChoice,
    ScopeEntry,
    check_bool,
    check_choices,
    check_cost,
    check_cost_argument,
    check_function,
    check_functions,
    unknown_argument,
)
from ratelab.limiter import NEVER, Decision, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans

if TYPE_CHECKING:
    from ratelab.http.file_policies import FilePolicies

_NO_SECRET = (
    f"{SECRET} is not set: a client counts as another one on other machines and after a restart, and is granted the "
    "whole quota again; set the same secret for all instances"
)


_DEFAULT = object()


class PolicyArguments(TypedDict, total=False):
    """Arguments of a `Gate` that the constructors of doors pass on; the page `policies` of the manual explains most."""

    costs: Mapping[str, int | Callable[[Any], int]]
    account: str | Callable[[Any], str | None] | None
    plan: AnyPlanSource | None
    default_plan: str | None
    on_plan_error: str
    plan_timeout: float
    charge: Callable[[Any, int], bool] | None
    file: FilePolicies | None
    max_delay: float


class GateArguments(PolicyArguments, total=False):
    """Arguments of a `Gate` other than its limiter."""

    key: str | Identity | Callable[[Any], str | None]
    cost: int | Callable[[Any], int]
    exempt: Callable[[Any], bool] | None
    legacy: str
    policy: str | None
    on_denied: Callable[[Any, Decision], Any] | None


class Gate:
    """Decide the requests of a door by a limiter.

    The arguments are those of `ratelab.http.RateLimitMiddleware`. Functions among them take the ASGI scope of a request
    or, with a `subject`, the entry of the scope with that name: the request of a framework. Those that `by_route` made
    always take the scope. Raise `InputError` for invalid arguments.
    """

    blocking: ClassVar[bool] = False
    """Whether the door blocks a thread for each request, so that nothing can be awaited."""
    default_max_delay_ns: ClassVar[int] = NEVER
    """The longest delay for which the door holds a request, unless `max_delay` is given in seconds."""

    def __init__(
        self,
        limiter: AnyLimiter | Policy | list[Policy] | tuple[Policy, ...] | Callable[[Any], AnyLimiter],
        key: str | Identity | Callable[[Any], str | None] = "ip",
        cost: int | Callable[[Any], int] = 1,
        exempt: Callable[[Any], bool] | None = None,
        legacy: str = "off",
        policy: str | None = None,
        on_denied: Callable[[Any, Decision], Any] | None = None,
        *,
        costs: Mapping[str, int | Callable[[Any], int]] = MappingProxyType({}),
        account: str | Callable[[Any], str | None] | None = None,
        plan: AnyPlanSource | None = None,
        default_plan: str | None = None,
        on_plan_error: str = "default",
        plan_timeout: float = 1.0,
        charge: Callable[[Any, int], bool] | None = None,
        file: FilePolicies | None = None,
        max_delay: Any = _DEFAULT,
        subject: str | None = None,
        **unknown: object,
    ) -> None:
        if unknown:
            raise unknown_argument(min(unknown), GateArguments.__annotations__.keys() - {"file"})
        limiter = MemoryLimiter(limiter) if isinstance(limiter, Policy | list | tuple) else limiter
        if isinstance(limiter, type):  # which is callable, too
            check_limiter(limiter)
        check_choices(limiter, partial(check_limiter, blocking=self.blocking))
        check_functions(limiter, key, cost, {"exempt": exempt, "on_denied": on_denied, "charge": charge})
        check_account(account)
        check_plan_errors(on_plan_error, plan_timeout)
        self._max_delay_ns = self.default_max_delay_ns if max_delay is _DEFAULT else _parse_delay(max_delay)
        if self.blocking:
            check_function("plan", plan)
        if not isinstance(costs, Mapping):
            raise InputError(f"costs must be a mapping of names to costs, got {short_repr(costs)}")
        for name, one in costs.items():
            check_cost_argument(f"costs[{name!r}]", one)
        if policy is not None:
            format_string(policy)
        adapt = partial(_adapt, subject)
        self.writes_legacy = legacy != "off"
        """Whether `X-RateLimit-*` fields are written, of which a response has one set."""
        self.counts = Counts()
        self.offenders = Offenders()
        """The keys with the most denied requests."""
        self._on_denied: DenialHook | None = adapt(on_denied)
        self._charge: ChargeHook | None = adapt(charge)
        self.refunds = charge is not None
        """Whether `settle` may refund a request."""
        self._identity = _adapt_identity(adapt, key) if isinstance(key, Identity) else Identity(adapt(key))
        self._options = options = PolicyOptions(
            cost=adapt(cost),
            costs={name: adapt(each) for name, each in costs.items()},
            account=adapt(account),
            plan=adapt(plan),
            default_plan=default_plan,
            on_plan_error=on_plan_error,
            plan_timeout=plan_timeout,
            legacy=legacy,
            exempt=adapt(exempt),
            charge=self._charge,
            on_denied=self._on_denied,
            file=file,
        )
        self.policy_guard: PolicyGuard | None = None
        """The guard of several policies; None for a limiter of one, and for a function that chooses one."""
        self._limiter: Any = adapt(limiter)
        self._exempt = options.exempt
        self._keys_by_peer, self._find_key = self._identity.keys_by_peer, self._identity.find
        self._cost = 0 if callable(options.cost) else options.cost
        self._cost_of = options.cost if callable(options.cost) else None
        self._is_plain = legacy == "off" and self._cost_of is None
        """Whether a request of a known client that is not exempt needs nothing but the decision of the guard."""
        self._guard: Guard | None = None
        """The guard of a limiter of one policy, which is replaced when the limiter changes."""
        self._find_guard: Callable[[Scope], Guard] | None = None
        """Return the guard of a request, if a function chooses its limiter."""
        self._policy = policy
        if callable(limiter):
            if options.needs_policies():
                rule = "costs, account, plan and charge need one limiter, got a function"
                raise InputError(f"{rule}: use match in the policies of the limiter")
            self._find_guard = GuardFinder(self._limiter, self._check_limiter, legacy, policy, self.counts).find
        else:
            self._check_limiter(limiter)
            self._follow(find_plans(limiter))()
            follow_updates(limiter, self._follow)

    async def rule(self, scope: Scope) -> Ruling:
        """Decide what to do with an HTTP request; count it, unless it is admitted."""
        if self.policy_guard is not None:
            return await self.policy_guard.rule(scope)
        if self._exempt is not None and check_bool("exempt", self._exempt(scope)):
            return NOT_LIMITED
        try:
            key = self._find_key(scope)
        except AmbiguousClientError as error:
            self.counts.ambiguous += 1
            return Ruling(build_denial(400, (), problem(400, str(error))))
        guard = self._guard or self._choose_guard(scope)
        cost = self._cost if self._cost_of is None else check_cost(self._cost_of(scope))
        try:
            result = guard.decide(key, cost)
            row: Row = (await await_store(result))[:5] if guard.awaited else result
        except StoreError as error:
            return self._rule_undecided(error)
        return self._rule_decided(scope, guard, key, cost, row)

    def _choose_guard(self, scope: Scope) -> Guard:
        """Return the guard of the limiter that a function chooses for a request."""
        assert self._find_guard is not None  # noqa: S101  (else there is a guard for all requests)
        return self._find_guard(scope)

    def _rule_undecided(self, error: StoreError) -> Ruling:
        """Return the ruling on a request that the limiter's store made no decision on, and count it."""
        self.counts.unavailable += 1
        return Ruling(build_unavailable(error.retry_after_ns))

    def _rule_decided(self, scope: Scope, guard: Guard, key: str, cost: int, row: Row) -> Ruling:
        """Return the ruling on a request that the guard of one policy has decided; count it, unless it is admitted."""
        allowed, remaining, _, reset_after_ns, delay_ns = row
        scope["ratelab"] = row
        if not allowed:
            return self._deny(scope, guard, key, Decision(*row, guard.name))
        fields = guard.format(remaining, ceil_seconds(reset_after_ns - (delay_ns if cost else 0)), False)
        if not (delay_ns and cost):
            return Ruling(None, fields, Decision(*row))
        limiter = self._limiter(scope) if callable(self._limiter) else self._limiter

        async def refuse(longest_ns: int) -> Ruling:
            await refund(limiter, key, cost)
            left, _ = await look(limiter, key) or (Decision(*row), ())
            wait = delay_ns - longest_ns
            return self._deny(scope, guard, key, Decision(False, 0, wait, left.reset_after_ns, 0, guard.name))

        return Ruling(None, fields, Decision(*row), delay_ns, partial(refund, limiter, key, cost), None, refuse)

    async def bound_delay(self, ruling: Ruling) -> Ruling:
        """Return a ruling, or that on a request whose delay is above `max_delay`: it is refunded and denied."""
        if ruling.delay_ns <= self._max_delay_ns or ruling.refuse is None:
            return ruling
        return await ruling.refuse(self._max_delay_ns)

    def _deny(self, scope: Scope, guard: Guard, key: str, decision: Decision) -> Ruling:
        """Return the ruling on a request that the guard of one policy denies, and count it."""
        self.counts.denied += 1
        self.offenders.add(key)
        denial = guard.deny(decision.remaining, decision.retry_after_ns, decision.reset_after_ns)
        answer = None if self._on_denied is None else self._on_denied(scope, decision)
        return Ruling(denial if answer is None else read_denial(answer, denial[1]), (), decision)

    async def refund_request(self, scope: Scope, ruling: Ruling | None = None) -> None:
        """Refund a request that was admitted, by a ruling or by the decision of one policy."""
        if ruling is not None and ruling.refund is not None:
            await ruling.refund()
        elif self.policy_guard is None:
            limiter = self._limiter(scope) if callable(self._limiter) else self._limiter
            cost = self._cost if self._cost_of is None else self._cost_of(scope)
            await refund(limiter, self._find_key(scope), cost)

    async def withdraw(self, scope: Scope, ruling: Ruling | None = None) -> Sequence[Field]:
        """Refund an admitted request that an inner limit has denied; return the header fields of the state after it."""
        await self.refund_request(scope, ruling)
        if self.policy_guard is not None:
            return () if ruling is None or ruling.restate is None else await ruling.restate()
        limiter = self._limiter(scope) if callable(self._limiter) else self._limiter
        left = await look(limiter, self._find_key(scope))
        guard = self._guard or self._choose_guard(scope)
        return () if left is None else guard.format(left[0].remaining, ceil_seconds(left[0].reset_after_ns), False)

    async def settle(self, scope: Scope, ruling: Ruling, status: int) -> None:
        """Refund an admitted request unless it stays charged by `charge`."""
        if self._charge is None or ruling.refund is None:
            return
        if not check_bool("charge", self._charge(scope, status)):
            await ruling.refund()

    def _follow(self, plans: Plans) -> Callable[[], None]:
        """Return a function that limits requests by the policies that the limiter then has; it checks them first."""
        if self.policy_guard is None and not self._options.needs_policies() and not needs_rules(plans):
            HeaderWriter(plans.policies[0], name=self._policy)
            return self._use_guard
        if self._policy is not None:
            raise InputError(f"policy must be left out, got {short_repr(self._policy)}: name each Policy instead")
        prepare(plans, self._options, self._identity)
        return self._use_policy_guard

    def _use_guard(self) -> None:
        self._guard = create_guard(self._limiter, self._options.legacy, self._policy)

    def _use_policy_guard(self) -> None:
        if self.policy_guard is None:
            options, counts, offenders = self._options, self.counts, self.offenders
            self.policy_guard = PolicyGuard(self._limiter, self._identity, options, counts, offenders)
        self._guard = None

    def _check_limiter(self, limiter: AnyLimiter) -> None:
        """Raise `InputError` unless requests can be limited; have a limiter in a store compare the secret of others."""
        check_limiter(limiter, self.blocking)
        use_secret = getattr(limiter, "use_secret", None)
        if use_secret is not None:
            if self._identity.secret_generated:
                warn_of_configuration(_NO_SECRET)
            use_secret(self._identity.fingerprint, self._identity.secret_generated)


def _parse_delay(seconds: object) -> int:
    """Return `max_delay` in nanoseconds; raise `InputError` unless it is a number of seconds >= 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise InputError(f"max_delay must be a number of seconds >= 0, got {short_repr(seconds)}")
    return round(seconds * NS_PER_S)


def takes_subject(function: object) -> bool:
    """Return whether an argument is a function that takes the request of a framework instead of the scope."""
    return callable(function) and not isinstance(function, Identity | RouteChoice | ScopeEntry)


def _adapt(subject: str | None, function: Any) -> Any:
    """Return a function of the scope that calls one of the scope's entry `subject`; other values as they are."""
    if subject is None or not takes_subject(function):
        return function
    return lambda scope, *arguments: function(scope[subject], *arguments)


def _adapt_identity(adapt: Callable[[Any], Any], identity: Identity) -> Identity:
    """Return an identity whose key, if it is a function, is adapted as the other functions are."""
    function = adapt(identity.key)
    return identity if function is identity.key else identity.with_key(function)


def create_from_file(
    path: str | os.PathLike[str], create: Callable[..., AnyLimiter], key: str | Identity | Callable[[Any], str | None]
) -> tuple[AnyLimiter, Identity, FilePolicies]:
    """Return the limiter that `create` makes of the policies of a file, the identity of clients, and the file.

    Raises `InputError` for an invalid file or argument.
    """
    try:
        from ratelab.http.file_policies import FilePolicies
    except ModuleNotFoundError as error:  # of a slim install
        remedy = "run pip install pyyaml pydantic"
        raise InputError(f"a policy file needs the package {error.name}: {remedy}") from None
    if not callable(create):
        rule = "limiter must be a function that creates the limiter of the policies of the file"
        raise InputError(f"{rule}, got {short_repr(create)}: see `ratelab docs policies`")
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path must be the path of a policy file, got {short_repr(path)}")
    file, identity = FilePolicies(os.fspath(path), watched=True), key if isinstance(key, Identity) else Identity(key)
    plans = file.find_plans(identity)
    return create(plans.policies, plans=plans.plans, overrides=plans.overrides), identity, file
