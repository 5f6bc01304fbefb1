"""Rules by which policies apply to requests: routes, keys and costs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ratelab.algorithms import Policy
from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Scope
from ratelab.http.identity import AmbiguousClientError, Identity, header_field
from ratelab.http.scope_functions import check_cost, check_function, route_path
from ratelab.limiter import AsyncLimiter, Costs, Keys, Limiter
from ratelab.policies.routes import Route, parse_route
from ratelab.stores.plans import Plans

Cost = int | Callable[[Scope], int]
"""The cost of a request: a whole number >= 0, or a function of the scope that returns one."""

AnyLimiter = Limiter | AsyncLimiter

_log = logging.getLogger("ratelab.http")


class LengthRequiredError(Exception):
    """A request whose body has an unknown length, although it is charged by bytes."""


def count_bytes(scope: Scope) -> int:
    """Return the length of a request's body; raise `LengthRequiredError` if it is not known beforehand."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if len({*lengths}) == 1 and lengths[0].strip().isdigit():
        return int(lengths[0])
    chunked = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    may_have_body = scope.get("http_version", "1.1") >= "2" and scope["method"] not in ("GET", "HEAD", "DELETE")
    if lengths or chunked or may_have_body:
        raise LengthRequiredError
    return 0


class Rule(NamedTuple):
    """How a policy applies to requests."""

    policy: Policy
    route: Route | None
    """The requests that it applies to; None for all."""
    find_key: Callable[[Scope], str] | None
    """None for the client of the limiter."""
    cost: Cost

    def can_count(self, scope: Scope) -> bool:
        """Return whether a request has the key and the cost that the policy counts."""
        try:
            if self.find_key is not None:
                self.find_key(scope)
            self.find_cost(scope)
        except (AmbiguousClientError, LengthRequiredError):
            return False
        except Exception as error:  # a shadow policy never denies, also if a function of its key or cost fails
            _log.warning("shadow: %s cannot count a request (%s: %s)", self.policy.name, type(error).__name__, error)
            return False
        return True

    def find_cost(self, scope: Scope) -> int:
        """Return the cost of a request; raise `InputError` for an invalid one."""
        return check_cost(self.cost(scope) if callable(self.cost) else self.cost)


def find_plans(limiter: AnyLimiter) -> Plans:
    """Return the policies of a limiter, with their plans and overrides if it has any."""
    plans: Plans | None = getattr(limiter, "plans", None)
    return Plans(tuple(getattr(limiter, "policies", (limiter.policy,)))) if plans is None else plans


def needs_rules(plans: Plans) -> bool:
    """Return whether there are several policies, or one that does not apply to all requests in the same way."""
    kinds = {(each.key, each.match, each.cost, each.shadow) for each in plans.policies}
    return len(plans.policies) > 1 or kinds != {(None, None, "requests", False)} or bool(plans.overrides)


def check_account(account: object) -> None:
    """Raise `InputError` unless `account` is None, `ip`, `header:NAME` or a plain function."""
    check_function("account", account)
    if account is not None and account != "ip" and not callable(account):
        header_field(account, "account must be header:NAME or a function of the request")


class RuleBook:
    """The rules of a limiter's policies.

    `costs` are functions of the scope by name, in addition to `requests`, whose cost is `cost`, and `bytes`. `account`
    is `header:NAME` or a function of the scope, for policies that count accounts; without an account, the address
    counts. Raise `InputError` for a policy with an unknown cost, an invalid key or route, or no account.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        identity: Identity,
        cost: Cost,
        costs: Mapping[str, Cost],
        account: str | Callable[[Scope], str | None] | None,
    ) -> None:
        for name, function in costs.items():
            check_function(f"costs[{name!r}]", function)
        self._identity, self._account = identity, account
        self._costs: Mapping[str, Cost] = {"bytes": count_bytes, **costs, "requests": cost}
        self._rules = [self._create_rule(policy) for policy in policies]
        self._different_keys = any(rule.find_key or rule.route for rule in self._rules)
        self._different_costs = any(policy.cost != "requests" for policy in policies)
        only_shadows = all(policy.shadow for policy in policies)
        self.all_apply = not (self._different_keys or self._different_costs or (only_shadows and callable(cost)))

    def find_cost(self, scope: Scope) -> int:
        """Return the cost of a request, in requests; its function may return any value."""
        cost = self._costs["requests"]
        return cost(scope) if callable(cost) else cost

    def find_rules(self, scope: Scope) -> Sequence[Rule]:
        """Return the rules of the policies that apply to a request, in their order.

        A shadow policy does not apply to a request that it cannot count, so that it never causes an error.
        """
        if self.all_apply:
            return self._rules
        method, path = scope["method"], route_path(scope)
        applying = [rule for rule in self._rules if rule.route is None or rule.route.matches(method, path)]
        return [rule for rule in applying if not rule.policy.shadow or rule.can_count(scope)]

    def find_keys(self, rules: Sequence[Rule], scope: Scope, client: str) -> Keys:
        """Return the keys of a request, by the names of the policies unless all have the key of the client."""
        if not self._different_keys and len(rules) == len(self._rules):
            return client
        return {rule.policy.name: client if rule.find_key is None else rule.find_key(scope) for rule in rules}

    def find_costs(self, rules: Sequence[Rule], scope: Scope) -> Costs:
        """Return the costs of a request, by the names of the policies unless all count requests.

        The cost is 0 for policies that do not apply to the request, since the limiter expects one.
        """
        if not self._different_costs:
            return rules[0].find_cost(scope)
        costs = {rule.policy.name: 0 for rule in self._rules}
        return costs | {rule.policy.name: rule.find_cost(scope) for rule in rules}

    def _create_rule(self, policy: Policy) -> Rule:
        if policy.cost not in self._costs:
            remedy = f"give costs={{{policy.cost!r}: a function of the request}}"
            raise InputError(f"unknown cost {short_repr(policy.cost)} of policy {policy.name}: {remedy}")
        route = None if policy.match is None else parse_route(policy.match)
        return Rule(policy, route, self._choose_key(policy), self._costs[policy.cost])

    def _choose_key(self, policy: Policy) -> Callable[[Scope], str] | None:
        """Return the function that identifies the client of a policy; None for the client of the limiter."""
        if policy.key is None or policy.key == "all":  # the limiter has one counter for all
            return None
        key = self._account if policy.key == "account" else policy.key
        if key is None:
            remedy = "give account='header:NAME' or a function of the request"
            raise InputError(f"policy {policy.name} counts accounts, and no account is given: {remedy}")
        return self._identity.with_key(key).find
