"""Scenarios with several policies: their lessons, and the errors in their files."""

from __future__ import annotations

from heapq import heappop, heappush
from pathlib import Path

import numpy as np
import pytest
from cli_runner import POLICY_SCENARIOS, SCENARIOS

from ratelab import InputError, ManualClock, MemoryLimiter
from ratelab.lab.policies.figures import JointResult, compare_semantics
from ratelab.lab.scenarios import Scenario, load_scenario
from ratelab.lab.scenarios.policies import PolicyClient, describe_facts
from ratelab.stores.tickets import Ticket


def run(name: str) -> tuple[Scenario, list[JointResult]]:
    scenario = load_scenario(str(SCENARIOS / f"{name}.yaml"))
    assert scenario.limits is not None
    return scenario, list(compare_semantics(scenario.limits.parts, scenario.traffic, scenario.limits.semantics).results)


def test_one_by_one_denied_requests_burn_the_quota_of_the_day() -> None:
    _, (atomic, sequential) = run("burned-quota")
    day, _ = atomic.policies
    assert atomic.whole.burned == day.result.denied == 0
    day, second = sequential.policies
    assert day.burned == second.result.denied > 700
    assert day.burned + sequential.whole.result.admitted == 1000  # the whole day
    assert sequential.whole.result.admitted < atomic.whole.result.admitted / 2


def test_one_user_starves_an_organisation_only_if_checked_one_by_one() -> None:
    scenario, results = run("starved-organisation")
    lost = [result.whole.result.client_offered - result.whole.result.client_admitted for result in results]
    names = np.array(scenario.traffic.names)
    assert set(names[lost[0] > 0]) == {"flood"}
    colleagues = np.char.startswith(names, "colleague")
    assert (lost[1][colleagues] > 0.5 * scenario.traffic.client_requests[colleagues]).all()
    assert lost[1][names == "neighbour"] == 0


def test_an_oversized_maximum_causes_denials_and_a_modest_one_does_not() -> None:
    scenario, (result,) = run("oversized-max-tokens")
    offered, admitted = result.whole.result.client_offered, result.whole.result.client_admitted
    assert scenario.traffic.names == ("modest", "oversized")
    assert admitted[0] == offered[0]
    assert admitted[1] < 0.6 * offered[1]
    tokens = result.policies[1]
    assert tokens.bound == result.whole.result.denied
    assert tokens.policy is not None
    settlement = tokens.policy.asked.settlement
    assert settlement is not None
    used = settlement.actual[tokens.policy.let_through["allowed"]].sum()
    assert used < 0.5 * 2 * 20_000 * 5  # less than half of the quota of two clients in five minutes


def test_costs_are_settled_as_by_a_limiter() -> None:
    scenario, (result,) = run("oversized-max-tokens")
    assert scenario.limits is not None
    clock = ManualClock()
    limiter = MemoryLimiter([part.policy for part in scenario.limits.parts], clock=clock)
    settlement = scenario.limits.parts[1].settlement
    assert settlement is not None
    due: list[tuple[int, int, Ticket]] = []
    requests = zip(scenario.traffic.times.tolist(), scenario.traffic.clients.tolist(), strict=True)
    for n, (time, client) in enumerate(requests):
        while due and due[0][0] <= time:
            at, place, ticket = heappop(due)
            clock.advance(at - clock())
            ticket.settle({"requests": 1, "tokens": int(settlement.actual[place])})
        clock.advance(time - clock())
        costs = {"requests": 1, "tokens": int(scenario.limits.parts[1].traffic.costs[n])}
        ticket = limiter.reserve(str(client), costs, deadline=3600)
        assert ticket.allowed == result.outcome.decisions["allowed"][n]
        if ticket.allowed:
            heappush(due, (time + int(settlement.delays[n]), n, ticket))


@pytest.mark.parametrize("path", POLICY_SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_with_policies_has_a_lesson(path: Path) -> None:
    scenario = load_scenario(str(path))
    assert scenario.name == path.stem
    assert scenario.lesson
    assert f'run("{path.stem}")' in Path(__file__).read_text(encoding="utf-8")


VALID = """\
name: limits
duration: 10s
policies:
  - {name: second, algorithm: token-bucket, rate: 2/s, burst: 5}
  - {name: login, algorithm: fixed-window, rate: 3/min, match: POST /login, key: account}
  - {name: tokens, algorithm: token-bucket, rate: 100/s, cost: tokens, shadow: true}
plans:
  premium: {second: {rate: 20/s, burst: 50}}
clients:
  - name: alice
    plan: premium
    account: acme
    route: POST /login
    costs: {tokens: {10: 0.5, 500: 0.5}}
    traffic:
      - {pattern: steady, rate: 10/s}
  - name: bob
    account: acme
    traffic:
      - {pattern: steady, rate: 1/s}
"""


def load(text: str, tmp_path: Path) -> Scenario:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    return load_scenario(str(path))


def test_plans_routes_accounts_and_costs_select_the_requests_of_each_policy(tmp_path: Path) -> None:
    scenario = load(VALID, tmp_path)
    assert scenario.limits is not None
    parts = {part.label: part for part in scenario.limits.parts}
    assert list(parts) == ["second (premium)", "second (no plan)", "login", "tokens"]
    assert parts["second (premium)"].policy.quota.burst == 50
    assert [len(part.traffic) for part in parts.values()] == [100, 10, 100, 110]
    assert parts["login"].traffic.names == ("acme",)
    assert set(parts["tokens"].traffic.costs.tolist()) == {0, 10, 500}
    (result,) = compare_semantics(scenario.limits.parts, scenario.traffic).results
    assert result.policies[2].result.admitted == 3
    assert result.policies[3].differing


def test_the_facts_about_a_client_are_described(tmp_path: Path) -> None:
    alice, bob = load(VALID, tmp_path).clients
    assert isinstance(alice, PolicyClient)
    assert isinstance(bob, PolicyClient)
    assert describe_facts(alice) == " (plan premium, account acme, POST /login, 10 to 500 tokens)"
    assert describe_facts(bob) == " (account acme)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plan: premium", "plan: premum", "clients[0].plan: unknown plan 'premum'; did you mean 'premium'?"),
        ("    route: POST /login\n", "", "policies: policy 'login' applies to POST /login, but the requests have no"),
        ("    account: acme\n", "", "policies: policy 'login' has the key account, which the requests lack: use all"),
        ("cost: tokens", "cost: bytes", "policies: policy 'tokens' has the cost bytes, which the requests lack"),
        ("duration: 10s", "duration: 10s\nsemantics: atomc", "semantics: expected one of atomic, sequential"),
        ("duration: 10s", "duration: 10s\nquota: {rate: 2/s}", "quota: unknown key"),
        ("duration: 10s", "duration: 10s\nchart: window", "chart: expected one of policies, bound, left"),
        (
            "route: POST /login",
            "settle: {after: 2s, costs: {token: 5}}",
            "clients[0].settle.costs.token: unknown cost 'token': add the cost to reserve to costs",
        ),
        ("name: login", "name: second", "policies[1]: duplicate policy name 'second'"),
        ("rate: 3/min", "rate: 3", "policies[1].rate: rate must look like 2/s"),
        ("{second: {rate", "{scond: {rate", "plans.premium.scond: unknown policy 'scond'; did you mean 'second'?"),
        ("rate: 2/s, burst: 5}", "rate: 2/s, burst: 5, key: all}", "which a plan cannot change: leave it out"),
    ],
)  # fmt: skip
def test_an_invalid_file_is_reported_with_place_and_remedy(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(VALID.replace(old, new), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
