"""Decisions of several policies on each request: plans, shadow policies and refunds."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import combine, list_decisions
from ratelab.errors import InputError, StoreError
from ratelab.http.asgi import Field, Scope
from ratelab.http.counters import Counts, PolicyCounts
from ratelab.http.delayed_admission import create_trio_error
from ratelab.http.headers import format_policy, format_string
from ratelab.http.identity import AmbiguousClientError, Identity
from ratelab.http.offenders import Offenders
from ratelab.http.plan_source import AnyPlanSource, PlanError, PlanSource
from ratelab.http.policy_headers import PolicyHeaderWriter, PolicyVerdict
from ratelab.http.policy_rules import Cost, LengthRequiredError, RuleBook
from ratelab.http.responses import (
    NOT_LIMITED,
    Denial,
    DenialHook,
    Ruling,
    build_denial,
    build_unavailable,
    create_decision,
    create_ruling,
    problem,
    read_denial,
)
from ratelab.http.scope_functions import check_bool, check_cost, format_path
from ratelab.limiter import Costs, Decision, Keys
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans
from ratelab.stores.sleepers import running_trio

if TYPE_CHECKING:
    from ratelab.http.file_policies import FilePolicies

ChargeHook = Callable[[Scope, int], bool]
"""A function of the scope and the status of the response that returns whether the request stays charged."""

T = TypeVar("T")

_log = logging.getLogger("ratelab.http")


class PolicyOptions(NamedTuple):
    """Arguments of `RateLimitMiddleware` that a limiter of several policies uses."""

    cost: Cost
    costs: Mapping[str, Cost]
    account: str | Callable[[Scope], str | None] | None
    plan: AnyPlanSource | None
    default_plan: str | None
    on_plan_error: str
    plan_timeout: float
    legacy: str
    exempt: Callable[[Scope], bool] | None
    charge: ChargeHook | None
    on_denied: DenialHook | None
    file: FilePolicies | None

    def needs_policies(self) -> bool:
        """Return whether an argument is given that only a limiter of several policies uses."""
        values = (self.account, self.plan, self.default_plan, self.charge, self.file)
        return bool(self.costs) or any(value is not None for value in values)

    def create_rules(self, policies: Sequence[Policy], identity: Identity) -> RuleBook:
        """Create the rules of policies; an argument replaces the account of the file."""
        account = self.account
        if self.file is not None and account is None:
            account = self.file.account
        return RuleBook(policies, identity, self.cost, self.costs, account)

    def create_plan_source(self, plans: Iterable[str], identity: Identity) -> PlanSource:
        """Create the source of plans; arguments replace the source and the default plan of the file."""
        source, default = self.plan, self.default_plan
        if self.file is not None:
            source = self.file.plan if source is None else source
            default = self.file.content.default_plan if default is None else default
        return PlanSource(source, default, self.on_plan_error, self.plan_timeout, identity, plans)


class Setup(NamedTuple):
    """The policies in force, and how they apply to requests; replaced as a whole."""

    plans: Plans
    rules: RuleBook
    plan_source: PlanSource
    is_uniform: bool
    """Whether the policies decide every request together, with the same key and cost, and enforce their decisions."""
    fields: dict[tuple[int, ...], list[Field]]
    """Header fields of requests that such policies admitted."""


def prepare(plans: Plans, options: PolicyOptions, identity: Identity) -> Setup:
    """Prepare to decide requests by policies; raise `InputError` if a key, cost, route, name or plan is unusable."""
    for policy in plans.policies:
        format_policy(policy, format_string(policy.name))
    rules = options.create_rules(plans.policies, identity)
    source = options.create_plan_source(plans.plans, identity)
    shadow = any(policy.shadow for policy in plans.policies)
    is_uniform = rules.all_apply and not (shadow or plans.overrides or source.may_find_plans)
    return Setup(plans, rules, source, is_uniform, {})


class PolicyGuard:
    """Decide requests by several policies.

    Each policy has its own key, cost and route. A plan changes the quotas of a request. A request that no policy
    applies to is not limited. Shadow policies are counted and logged, and are not part of the header fields.
    """

    def __init__(
        self, limiter: Any, identity: Identity, options: PolicyOptions, counts: Counts, offenders: Offenders
    ) -> None:
        self._limiter = limiter
        hit_each = getattr(limiter.hit_each, "__func__", None)
        self._decides_in_memory = hit_each is MemoryLimiter.hit_each
        self._identity = identity
        self._options = options
        self._headers = PolicyHeaderWriter(options.legacy)
        self._counts, self._offenders = counts, offenders
        self._file = options.file
        self._unchanging_plans = Plans(limiter.policies)  # of a limiter that cannot be changed
        self._lock = RLock()
        self._setup = prepare(self._find_plans(), options, identity)
        self._start_counts()

    def reload(self, force: bool = False) -> bool:
        """Read the policy file again if it has changed; return whether its policies are in force now.

        With `force`, read it in any case. An invalid file is logged, and changes nothing.
        """
        file = self._file
        if file is None:
            return False
        with self._lock:
            return file.reload(lambda: self._update(file.find_plans(self._identity)), force)

    def _update(self, plans: Plans) -> None:
        """Replace the policies of the limiter; raise `InputError`, and change nothing, for invalid ones."""
        prepare(plans, self._options, self._identity)  # raises before the limiter changes
        self._limiter.update(plans.policies, plans=plans.plans, overrides=plans.overrides)
        self._refresh()

    def _refresh(self) -> Setup:
        """Return the setup in force; prepare it again if the policies of the limiter have changed."""
        if self._find_plans() is not self._setup.plans:
            with self._lock:
                plans = self._find_plans()
                if plans is not self._setup.plans:
                    self._setup = prepare(plans, self._options, self._identity)
                    self._start_counts()
        return self._setup

    def _find_plans(self) -> Plans:
        plans: Plans = getattr(self._limiter, "plans", self._unchanging_plans)
        return plans

    def _start_counts(self) -> None:
        """Count by the policies in force; those with the same name as before keep their counts."""
        before, self._counts.policies = self._counts.policies, {}
        for policy in self._setup.plans.policies:
            counts = before.get(policy.name)
            same = counts is not None and counts.shadow == policy.shadow
            self._counts.policies[policy.name] = counts if counts and same else PolicyCounts(policy.shadow)

    async def rule(self, scope: Scope) -> Ruling:
        """Decide what to do with an HTTP request."""
        if self._file is not None and self._file.poll():
            self.reload()
        if self._is_exempt(scope):
            return NOT_LIMITED
        try:
            setup = self._refresh()
            together = self._decides_in_memory and setup.is_uniform
            verdict = self._decide_together(scope, setup) if together else await self._decide(scope)
        except (AmbiguousClientError, PlanError, StoreError) as error:
            # shadow policies never deny
            return Ruling(self._reject(error)) if self._is_enforced(scope) else NOT_LIMITED
        except LengthRequiredError:
            self._counts.ambiguous += 1
            return Ruling(build_denial(411, (), problem(411, "Send the body with Content-Length.")))
        if isinstance(verdict, Ruling):
            return verdict
        if verdict is None:
            return NOT_LIMITED
        decision = scope["ratelab"] = verdict.decision
        self._count(scope, verdict)
        if not decision.allowed:
            return self._deny(scope, verdict)
        refund_request = partial(refund, self._limiter, verdict.keys, verdict.list_charges())
        costs = verdict.costs
        delay_ns = decision.delay_ns if (costs if isinstance(costs, int) else any(costs.values())) else 0
        refuse = partial(self._refuse, scope, verdict)
        fields, restate = self._headers.format_admitted(verdict), partial(self._restate, verdict)
        return Ruling(None, fields, decision, delay_ns, refund_request, restate, refuse)

    def _is_enforced(self, scope: Scope) -> bool:
        """Return whether a policy that is not a shadow policy applies to a request."""
        return any(not rule.policy.shadow for rule in self._setup.rules.find_rules(scope))

    def _reject(self, error: AmbiguousClientError | PlanError | StoreError) -> Denial:
        """Return the response to a request that cannot be decided."""
        if isinstance(error, AmbiguousClientError):
            self._counts.ambiguous += 1
            return build_denial(400, (), problem(400, str(error)))
        self._counts.unavailable += 1
        return build_unavailable(error.retry_after_ns)

    def _is_exempt(self, scope: Scope) -> bool:
        exempted = self._options.exempt is not None and self._options.exempt(scope)
        return bool(exempted) and check_bool("exempt", exempted)

    def _decide_together(self, scope: Scope, setup: Setup) -> Ruling | PolicyVerdict:
        """Return the ruling on a request that uniform policies in memory admit at once, else their decision."""
        key, cost = self._identity.find(scope), check_cost(setup.rules.find_cost(scope))
        answers = self._limiter.hit_policies(key, cost)
        decision = create_decision(combine(answers))
        if not decision[0] or decision[4]:
            return PolicyVerdict(decision, [policy for policy, _ in answers], list_decisions(answers), key, cost)
        scope["ratelab"] = decision
        fields = self._headers.format_together(answers, decision[1], setup.fields)
        restate = partial(self._restate, PolicyVerdict(decision, setup.plans.policies, (), key, cost))
        return create_ruling((None, fields, decision, 0, partial(refund, self._limiter, key, cost), restate, None))

    async def _decide(self, scope: Scope) -> PolicyVerdict | None:
        """Return the decision on a request, or None if no policy applies to it."""
        setup = self._refresh()
        while True:
            rules = setup.rules.find_rules(scope)
            if not rules:
                return None
            client = self._identity.find(scope)
            plan = await setup.plan_source.find(scope, client)
            before, setup = setup, self._refresh()
            if setup is before:  # else the policies have changed during the await
                break
        keys, costs = setup.rules.find_keys(rules, scope, client), setup.rules.find_costs(rules, scope)
        hit_each = self._limiter.hit_each
        try:
            result = hit_each(keys, costs) if plan is None else hit_each(keys, costs, plan=plan)
            decision, each = await await_store(result) if isawaitable(result) else result
        except InputError:
            if self._find_plans() is setup.plans:
                raise
            return await self._decide(scope)  # another thread has changed the policies, and nothing was charged
        if len(each) != len(rules):  # decided by policies of a later change: without header fields
            return PolicyVerdict(decision, (), (), keys, costs, plan)
        asked = [(rule.policy, client if isinstance(keys, str) else keys[rule.policy.name]) for rule in rules]
        policies = [setup.plans.policy_of(policy, plan, key) for policy, key in asked]
        return PolicyVerdict(decision, policies, each, keys, costs, plan)

    def _count(self, scope: Scope, verdict: PolicyVerdict) -> None:
        """Count the denials of each policy, and the shadow policies that decided otherwise; log their denials."""
        allowed = verdict.decision.allowed
        for policy, decision in zip(verdict.policies, verdict.each, strict=True):
            counts = self._counts.policies.get(policy.name)
            if counts is None:  # the policy has just been removed
                continue
            if not decision.allowed:
                counts.denied += 1
            if policy.shadow and decision.allowed is not allowed:
                if allowed:
                    counts.stricter += 1
                else:
                    counts.looser += 1
        if verdict.decision.shadow and _log.isEnabledFor(logging.INFO):
            names = ", ".join(verdict.decision.shadow)
            _log.info("shadow: %s would have denied %s %s", names, scope["method"], format_path(scope))

    def _deny(self, scope: Scope, verdict: PolicyVerdict) -> Ruling:
        """Return the ruling on a request that is denied, and count it."""
        decision, keys = verdict.decision, verdict.keys
        self._counts.denied += 1
        key = keys if isinstance(keys, str) else keys.get(decision.bound_by or "")
        if key is not None:  # unless its policy has just been removed
            self._offenders.add(key)
        usual = self._headers.format_denial(verdict)
        answer = None if self._options.on_denied is None else self._options.on_denied(scope, decision)
        return Ruling(usual if answer is None else read_denial(answer, usual[1]), decision=decision)

    async def _restate(self, verdict: PolicyVerdict) -> Sequence[Field]:
        """Return the header fields of the present state of the policies that have decided a request."""
        left = await look(self._limiter, verdict.keys, verdict.plan)
        if left is None or len(left[1]) != len(verdict.policies):  # the policies have changed meanwhile
            return ()
        return self._headers.format_admitted(verdict._replace(decision=left[0], each=left[1]))

    async def _refuse(self, scope: Scope, verdict: PolicyVerdict, longest_ns: int) -> Ruling:
        """Refund an admitted request whose delay is above `longest_ns`, and return the ruling that denies it."""
        await refund(self._limiter, verdict.keys, verdict.list_charges())
        left = await look(self._limiter, verdict.keys, verdict.plan)
        if left is None or len(left[1]) != len(verdict.each):  # the policies have changed meanwhile
            left = verdict.decision, tuple(verdict.each)
        each = [
            now._replace(allowed=False, remaining=0, retry_after_ns=one.delay_ns - longest_ns)
            if one.allowed and one.delay_ns > longest_ns
            else now._replace(allowed=one.allowed, retry_after_ns=one.retry_after_ns)
            for one, now in zip(verdict.each, left[1], strict=True)
        ]
        enforcing = [pair for pair in zip(verdict.policies, each, strict=True) if not pair[0].shadow]
        for policy, one in enforcing:
            if not one.allowed and policy.name in self._counts.policies:
                self._counts.policies[policy.name].denied += 1
        name = max(enforcing, key=lambda pair: pair[1].delay_ns)[0].name if enforcing else None
        wait = verdict.decision.delay_ns - longest_ns
        denial = Decision(False, 0, wait, left[0].reset_after_ns, 0, name, verdict.decision.shadow)
        return self._deny(scope, verdict._replace(decision=denial, each=each))


async def refund(limiter: Any, keys: Keys, costs: Costs) -> None:
    """Refund a request; if its store fails, or the limiter cannot refund, it stays charged."""
    give_back = getattr(limiter, "refund", None)
    try:
        result = None if give_back is None else give_back(keys, costs)
        if isawaitable(result):
            await await_store(result)
    except StoreError as error:
        _log.warning("a request that should be refunded stays charged (%s: %s)", error.kind, error)


async def look(limiter: Any, keys: Keys, plan: str | None = None) -> tuple[Decision, tuple[Decision, ...]] | None:
    """Return the joint decision on a hit of cost 0, and that of each policy; None if the limiter makes none."""
    try:
        result = limiter.hit_each(keys, 0) if plan is None else limiter.hit_each(keys, 0, plan=plan)
        looked: tuple[Decision, tuple[Decision, ...]] = await await_store(result) if isawaitable(result) else result
    except (InputError, StoreError):  # it may have other policies or plans since
        return None
    return looked


async def await_store(result: Awaitable[T]) -> T:
    """Await a limiter in a store, which needs asyncio."""
    try:
        return await result
    except RuntimeError as error:
        if running_trio() is None:
            raise
        raise create_trio_error() from error
