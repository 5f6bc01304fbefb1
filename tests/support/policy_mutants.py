"""Named bugs in the enforcement of several policies, each of which a test must catch."""

from __future__ import annotations

from mutate import Mutant, mutate

from ratelab.http import file_policies, plan_source, policy_guard
from ratelab.http.file_policies import FilePolicies, WatchedPolicyFile
from ratelab.http.gate import Gate
from ratelab.http.plan_source import PlanSource
from ratelab.http.policy_guard import PolicyGuard
from ratelab.http.policy_headers import PolicyHeaderWriter, PolicyVerdict
from ratelab.http.policy_rules import Rule, RuleBook

POLICIES = {
    "all policies bind": mutate(PolicyVerdict, "list_binding", "if not pair[1].allowed", ""),
    "requests and bytes are compared": mutate(
        PolicyVerdict, "list_binding", "least[pair[0].cost]", "min(least.values())"
    ),
    "a denied shadow policy is refunded": mutate(PolicyVerdict, "list_charges", "if decision.allowed else 0", ""),
    "shadow policies are listed": mutate(PolicyHeaderWriter, "_join_fields", "if not policy.shadow", ""),
    "a cost that is never granted has a wait": mutate(
        PolicyHeaderWriter, "format_denial", "verdict.decision.retry_after_ns == NEVER", "False"
    ),
    "all policies count the client of the limiter": mutate(
        RuleBook, "find_keys", "client if rule.find_key is None else rule.find_key(scope)", "client"
    ),
    "a policy applies to every route": mutate(
        RuleBook, "find_rules", "rule.route is None or rule.route.matches(method, path)", "True"
    ),
    "a shadow policy rejects requests that it cannot count": Mutant(Rule, "can_count", lambda *_: True),
    "shadow policies deny while their store is down": Mutant(PolicyGuard, "_is_enforced", lambda *_: True),
    "successes are charged": mutate(
        Gate, "settle", 'if not check_bool("charge", self._charge(scope, status)):', "if False:"
    ),
    "a failure of the plan is admitted": mutate(PlanSource, "_use", "answer.failed and self._closed", "False"),
    "an unknown plan is used": mutate(PlanSource, "_check", "not self._is_known(plan)", "False"),
    "every request asks for its plan": Mutant(plan_source, "PLAN_LIFETIME_S", 0.0),
    "a failed plan is not asked for again": Mutant(plan_source, "RETRY_INTERVAL_S", 10.0**9),
    "the number of kept plans grows": mutate(PlanSource, "_keep", "len(self._answers) >= MAX_CACHED_PLANS", "False"),
    "a change of the file is not noticed": mutate(WatchedPolicyFile, "read_changed", "stamps == self._stamps", "True"),
    "an invalid file raises": mutate(FilePolicies, "reload", "except InputError", "except ZeroDivisionError"),
    "every request checks the file": Mutant(file_policies, "CHECK_INTERVAL_S", 0.0),
    "fields of another time are sent": mutate(
        PolicyHeaderWriter, "format_together", "cache.get(key)", "next(iter(cache.values()), None)"
    ),
    "only the least remaining quota counts": mutate(
        PolicyHeaderWriter, "format_together", "-(-row[3] // NS_PER_S) if row[1] == remaining else -1", "0"
    ),
    "a request of several policies is not delayed": mutate(PolicyGuard, "_decide_together", "or decision[4]", ""),
    "shadow denials are not logged": mutate(PolicyGuard, "_count", "verdict.decision.shadow and", "False and"),
    "shadow denials are not counted": Mutant(policy_guard, "PolicyCounts", lambda shadow: None),
}
"""Bugs in rules, header fields, plans, shadow policies and files."""
