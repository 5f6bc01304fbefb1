"""Recorded calls of a limiter of several policies: their lines, and a limiter that makes the calls again.

The first line has the policies. A line for each plan and each override follows, and all of them again after a change.
Every other line is a call, with the time that it was based on, in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ratelab.algorithms import ALGORITHMS, Policy
from ratelab.algorithms.penalty import Penalized
from ratelab.errors import InputError, short_repr
from ratelab.limiter import NEVER, ROW_FIELDS, Decision
from ratelab.quota import LARGEST
from ratelab.stores.arguments import name_costs, name_keys
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans
from ratelab.stores.policy_groups import ALL
from ratelab.stores.tickets import Ticket

Line = Mapping[str, Any]
"""A JSON object of a recording."""

_USES = {"key": None, "cost": "requests", "match": None, "shadow": False}
"""Fields of a policy that describe its use, with the values that are left out."""

_QUOTA_FIELDS = ("algorithm", "rate", "burst", "timezone", "penalty")

_MAX_DEADLINE_S = 10**9

_MAX_KEYS = 2**40  # no bucket is ever shared


# --- policies


def describe_plans(plans: Plans) -> Iterator[dict[str, object]]:
    """Yield lines with the policies, with the quotas of each plan, and with those of each override."""
    yield {"policies": {policy.name: _describe_policy(policy) for policy in plans.policies}}
    for kind, changed in (("plan", plans.plans), ("override", plans.overrides)):
        for name, policies in changed.items():
            yield {kind: name, "quotas": {policy: describe_quota(one) for policy, one in policies.items()}}


def describe_quota(policy: Policy) -> dict[str, object]:
    """Return the algorithm, the quota and the penalty of a policy."""
    quota = policy.quota
    described: dict[str, object] = {"algorithm": policy.algorithm.name, "rate": quota.rate, "burst": quota.burst}
    if quota.calendar is not None:
        described["timezone"] = quota.calendar.timezone
    if isinstance(policy.algorithm, Penalized):
        described["penalty"] = policy.algorithm.penalty.spell()
    return described


def _describe_policy(policy: Policy) -> dict[str, object]:
    uses = {name: value for name, usual in _USES.items() if (value := getattr(policy, name)) != usual}
    return describe_quota(policy) | uses


def is_plain(policies: Sequence[Policy]) -> bool:
    """Return whether there is a single policy, which applies to all requests by the key of the limiter."""
    return len(policies) == 1 and _describe_policy(policies[0]) == describe_quota(policies[0])


def _parse_policy(name: str, value: object, code: Mapping[str, str], base: Policy | None = None) -> Policy:
    """Return a policy, or `base` with another quota; `code` maps names of algorithms that are not built in."""
    if not isinstance(value, dict):
        raise InputError(f"policy {short_repr(name)} must be an object, got {short_repr(value)}")
    known = (*_QUOTA_FIELDS, *_USES) if base is None else _QUOTA_FIELDS
    unknown = next((field for field in value if field not in known), None)
    if unknown is not None:
        raise InputError(f"unknown field {short_repr(unknown)} of policy {short_repr(name)}")
    texts = {"name": name, **{field: value.get(field) for field in ("algorithm", "rate", "timezone", *_USES)}}
    texts.pop("shadow")
    for field, text in texts.items():
        if not (isinstance(text, str) and text.isprintable()) and (text is not None or field in ("algorithm", "rate")):
            raise InputError(f"{field} of policy {short_repr(name)} must be printable text, got {short_repr(text)}")
    algorithm = value["algorithm"]
    if algorithm not in code and algorithm not in ALGORITHMS:  # a data file must not choose code to run
        raise InputError(
            f"policy {short_repr(name)} was recorded with {short_repr(algorithm)}, which is not built in: "
            "give it with --algo, by name or as FILE.py:CLASS"
        )
    uses: dict[str, Any] = {
        field: value.get(field, usual) if base is None else getattr(base, field) for field, usual in _USES.items()
    }
    more: dict[str, Any] = {"timezone": value.get("timezone"), "penalty": value.get("penalty")}
    return Policy.create(code.get(algorithm, algorithm), value["rate"], value.get("burst"), name=name, **more, **uses)


# --- decisions


def describe_decision(decision: Decision, each: Iterable[Decision], names: Iterable[str]) -> dict[str, object]:
    """Return the decision on a hit, and that of each policy, whose `names` are given in the same order."""
    return {
        **dict(zip(ROW_FIELDS, decision, strict=False)),
        "bound_by": decision.bound_by,
        "shadow": [*decision.shadow],
        "policies": {name: dict(zip(ROW_FIELDS, one, strict=False)) for name, one in zip(names, each, strict=True)},
    }


class RepeatedHit(NamedTuple):
    """A recorded hit, and the decision of the limiter that repeats it."""

    at_ns: int
    keys: Mapping[str, str]
    """The key of each policy that is asked, by its name."""
    costs: Mapping[str, int]
    """The cost for each policy, by its name."""
    plan: str | None
    policies: Sequence[Policy]
    """The policies that are asked, with the quotas of the hit."""
    decision: Decision
    each: Sequence[Decision]
    """The decision of each."""
    fields: Mapping[str, object]
    """The fields of a recorded line that this decision would have."""


class CallRepeater:
    """Makes the calls of a recording again, in memory, at the recorded times.

    `code` maps the names of algorithms that are not built in to names for `find`. Raise `InputError` for an invalid
    line.
    """

    def __init__(self, header: Line, code: Mapping[str, str]) -> None:
        self._code = code
        self._now = 0
        self._limiter: MemoryLimiter | None = None
        self._tickets: dict[int, Ticket] = {}
        self._policies: tuple[Policy, ...] = ()
        self._names: dict[str, None] = {}
        self._changes: dict[str, dict[str, Sequence[Policy]]] | None = None  # not yet in force
        if "policies" not in header:  # one policy, which is named after its algorithm
            quota = {name: header[name] for name in _QUOTA_FIELDS if name in header}
            header = {"policies": {header.get("algorithm"): quota}}
        self._describe(header)

    @property
    def names(self) -> Sequence[str]:
        """The names of all policies that were described."""
        return [*self._names]

    def repeat(self, line: Line) -> RepeatedHit | None:
        """Make the call of a line again; return the hit, if it is one."""
        if "at_ns" not in line:
            self._describe(line)
            return None
        limiter, at_ns = self._prepare(), line["at_ns"]
        if type(at_ns) is not int or not self._now <= at_ns <= LARGEST:
            raise InputError("at_ns must be a whole number that never falls, and at most 2**62 - 1")
        self._now = at_ns
        if "settled" in line:
            ticket = self._tickets.pop(_get_ticket(line), None)
            if ticket is None or not ticket.settle(line["settled"]):
                raise InputError("settled needs a ticket of a line before, which is not settled yet")
            return None
        key = line.get("key")
        if not isinstance(key, (str, dict)):
            raise InputError(f"key must be text or an object, got {short_repr(key)}")
        if "refund" in line:
            limiter.refund(key, line["refund"])
            return None
        return self._hit(limiter, line, key)

    def _hit(self, limiter: MemoryLimiter, line: Line, key: str | dict[str, str]) -> RepeatedHit:
        keys, costs = name_keys(self._policies, key), name_costs(self._policies, line.get("cost", 1))
        if max(costs.values()) > LARGEST:
            raise InputError("cost must be at most 2**62 - 1")
        plan = line.get("plan")
        if "ticket" in line:
            ticket, each = limiter.reserve_each(keys, costs, plan, _MAX_DEADLINE_S)
            self._tickets[_get_ticket(line)] = ticket
            decision = ticket.decision
        else:
            decision, each = limiter.hit_each(keys, costs, plan)
        if max(max(one.row) for one in (decision, *each)) > NEVER:  # after a settlement far above the burst
            raise InputError("the key owes more than a replay can count: leave out its lines")
        asked = [policy for policy in self._policies if policy.name in keys]
        policies = [
            limiter.plans.policy_of(policy, plan, ALL if policy.key == ALL else keys[policy.name]) for policy in asked
        ]
        fields = describe_decision(decision, each, keys)
        return RepeatedHit(self._now, keys, costs, plan, policies, decision, each, fields)

    def _describe(self, line: Line) -> None:
        """Read policies, or the quotas of a plan or an override; they are in force from the next call on."""
        if isinstance(line.get("policies"), dict) and line["policies"]:
            self._policies = tuple(_parse_policy(name, one, self._code) for name, one in line["policies"].items())
            self._names |= dict.fromkeys(line["policies"])
            self._changes = {"plan": {}, "override": {}}
            return
        kind = next((kind for kind in ("plan", "override") if isinstance(line.get(kind), str)), None)
        quotas = line.get("quotas")
        if kind is None or self._changes is None or not isinstance(quotas, dict):
            raise InputError("expected a call, with its time at_ns, or policies, or the quotas of a plan or override")
        named = {policy.name: policy for policy in self._policies}
        unknown = next((name for name in quotas if name not in named), None)
        if unknown is not None:
            raise InputError(f"unknown policy {short_repr(unknown)}: choose from {', '.join(named)}")
        changed = [_parse_policy(name, one, self._code, named[name]) for name, one in quotas.items()]
        self._changes[kind][line[kind]] = changed

    def _prepare(self) -> MemoryLimiter:
        """Return the limiter with the policies that were described last."""
        if self._changes is not None:
            plans, overrides = self._changes["plan"], self._changes["override"]
            self._changes = None
            if self._limiter is None:
                self._limiter = MemoryLimiter(
                    self._policies, lambda: self._now, _MAX_KEYS, plans=plans, overrides=overrides
                )
            else:
                self._limiter.update(self._policies, plans=plans, overrides=overrides)
        assert self._limiter is not None  # noqa: S101  (the first line describes policies)
        return self._limiter


def _get_ticket(line: Line) -> int:
    number = line.get("ticket")
    if type(number) is not int:
        raise InputError(f"ticket must be a whole number, got {short_repr(number)}")
    return number
