"""Header fields and denials of several policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import Answer, combine, list_decisions
from ratelab.http.asgi import Field
from ratelab.http.headers import (
    MAX_CACHED_HEADERS,
    ceil_seconds,
    check_legacy,
    format_legacy,
    format_policy,
    format_state,
    format_string,
)
from ratelab.http.responses import Denial, build_denial, cost_above_burst, quota_exceeded
from ratelab.limiter import NEVER, Costs, Decision, Keys
from ratelab.quota import NS_PER_S


class PolicyVerdict(NamedTuple):
    """The joint decision on a request, and the decision of each policy."""

    decision: Decision
    policies: Sequence[Policy]
    """The policies that were asked, with the quotas of the client."""
    each: Sequence[Decision]
    """Their decisions."""
    keys: Keys
    costs: Costs
    plan: str | None = None

    def list_charges(self) -> dict[str, int]:
        """Return the cost that an admitted request was charged by each policy; a shadow policy may have denied it."""
        charges = {}
        for policy, decision in zip(self.policies, self.each, strict=True):
            cost = self.costs[policy.name] if isinstance(self.costs, Mapping) else self.costs
            charges[policy.name] = cost if decision.allowed else 0
        return charges

    def list_binding(self) -> list[tuple[Policy, Decision]]:
        """Return the enforcing policies that denied the request or, if it is admitted, have the least remaining.

        Of policies with different units, such as requests and bytes, the least of each unit counts.
        """
        enforcing = [pair for pair in zip(self.policies, self.each, strict=True) if not pair[0].shadow]
        if not self.decision.allowed:
            return [pair for pair in enforcing if not pair[1].allowed]
        least: dict[str, int] = {}
        for policy, decision in enforcing:
            least[policy.cost] = min(decision.remaining, least.get(policy.cost, NEVER))
        return [pair for pair in enforcing if pair[1].remaining == least[pair[0].cost]]


class Item(NamedTuple):
    """The parts of header fields that describe a policy."""

    policy: Policy
    name: bytes
    description: bytes
    """The item of `RateLimit-Policy`."""


class PolicyHeaderWriter:
    """Format the header fields of decisions by several policies, and the responses to denied requests.

    `RateLimit-Policy` lists all policies that were asked, but for shadow policies. `RateLimit` lists those that denied
    the request or, if it is admitted, those with the least remaining quota. `X-RateLimit-*` describe the policy with
    the longest wait or the least remaining quota. Raise `InputError` for an unknown `legacy`.
    """

    def __init__(self, legacy: str) -> None:
        self._legacy = check_legacy(legacy)
        self._items: dict[int, Item] = {}  # by the id of the policy, which its item keeps alive
        self._descriptions: dict[tuple[int, ...], tuple[Sequence[Policy], bytes]] = {}  # which keep theirs alive

    def format_admitted(self, verdict: PolicyVerdict) -> list[Field]:
        """Return the header fields of an admitted request, which has already been delayed."""
        states, described = [], (0, NEVER, 0)
        for policy, decision in verdict.list_binding():
            seconds = max(0, ceil_seconds(decision.reset_after_ns - verdict.decision.delay_ns))
            states.append(format_state(self._find_item(policy).name, decision.remaining, seconds))
            if decision.remaining < described[1]:
                described = policy.quota.burst, decision.remaining, seconds
        return self._join_fields(verdict, states, described)

    def format_together(
        self, answers: Sequence[Answer], remaining: int, cache: dict[tuple[int, ...], list[Field]]
    ) -> list[Field]:
        """Return the header fields of a request that policies with the same unit admitted at once.

        `remaining` is the least of their remaining quotas; `cache` keeps the fields of these policies.
        """
        key = (remaining, *[-(-row[3] // NS_PER_S) if row[1] == remaining else -1 for _, row in answers])
        fields = cache.get(key)
        if fields is None:
            policies, each = [policy for policy, _ in answers], list_decisions(answers)
            fields = self.format_admitted(PolicyVerdict(Decision(*combine(answers)), policies, each, "", 0))
            if self._legacy != "epoch":
                if len(cache) >= MAX_CACHED_HEADERS:
                    cache.clear()
                cache[key] = fields
        return fields

    def format_denial(self, verdict: PolicyVerdict) -> Denial:
        """Return the response to a denied request: 400 if one of the policies would never admit it, else 429."""
        states, described, names = [], (0, 0, 0), []
        for policy, decision in verdict.list_binding():
            never = decision.retry_after_ns == NEVER
            remaining = decision.remaining if never else 0
            seconds = ceil_seconds(decision.reset_after_ns if never else decision.retry_after_ns)
            states.append(format_state(self._find_item(policy).name, remaining, seconds))
            names.append(policy.name)
            if policy.name == verdict.decision.bound_by:
                described = policy.quota.burst, remaining, seconds
        if verdict.decision.retry_after_ns == NEVER:
            return build_denial(400, self._join_fields(verdict, states, described), cost_above_burst(described[0]))
        wait = ceil_seconds(verdict.decision.retry_after_ns)
        return build_denial(429, self._join_fields(verdict, states, described, wait), quota_exceeded((*names,), wait))

    def _join_fields(
        self, verdict: PolicyVerdict, states: list[bytes], described: tuple[int, int, int], wait: int | None = None
    ) -> list[Field]:
        """Return the header fields with the states of policies; none without enforcing policies."""
        if not states:
            return []
        key = tuple(map(id, verdict.policies))
        described_policies = self._descriptions.get(key)
        if described_policies is None:
            items = [self._find_item(policy).description for policy in verdict.policies if not policy.shadow]
            if len(self._descriptions) >= MAX_CACHED_HEADERS:
                self._descriptions.clear()
            described_policies = self._descriptions[key] = verdict.policies, b", ".join(items)
        fields = [(b"ratelimit-policy", described_policies[1]), (b"ratelimit", b", ".join(states))]
        if wait is not None:
            fields.append((b"retry-after", b"%d" % wait))
        return [*fields, *format_legacy(self._legacy, *described)]

    def _find_item(self, policy: Policy) -> Item:
        item = self._items.get(id(policy))
        if item is None:
            if len(self._items) >= MAX_CACHED_HEADERS:
                self._items.clear()
            name = format_string(policy.name)
            item = self._items[id(policy)] = Item(policy, name, format_policy(policy, name))
        return item
