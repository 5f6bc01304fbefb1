"""Several policies that decide together keep the contracts of each algorithm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations_with_replacement, permutations
from random import Random
from typing import NamedTuple

import pytest
from contracts import CHARGED
from mutate import rewritten
from reference_models import MODELS, decide

from ratelab import ALGORITHMS, NEVER, Policy, Quota, State
from ratelab.algorithms import composite
from ratelab.algorithms.composite import Composite, Part, combine
from ratelab.lab.conformance import CONTRACTS, MOVES, ORIGINS, Timeline, run
from ratelab.limiter import Row

PAIRS = [*combinations_with_replacement(ALGORITHMS, 2)]
TRIPLES = [*combinations_with_replacement(ALGORITHMS, 3)]
QUOTAS = [Quota.parse("2/s", 5), Quota.parse("7/13s", 5), Quota.parse("1/s", 9), Quota.parse("5/7ns", 6)]
"""Quotas of compositions: the burst of the first of them is the least."""

every_pair = pytest.mark.parametrize("names", PAIRS, ids=" and ".join)


class Setting(NamedTuple):
    """A composition, and requests at the landmarks of the quota with the least burst."""

    policies: list[Policy]
    timeline: Timeline


def draw_settings(names: Sequence[str], count: int, length: int = 12) -> Iterator[Setting]:
    for number in range(count):
        random = Random(f"{names} {number}")
        quotas = [random.choice(QUOTAS) for _ in names]
        policies = [
            Policy.create(name, quota, name=f"{name} {place}")
            for place, (name, quota) in enumerate(zip(names, quotas, strict=True))
        ]
        least = min(quotas, key=lambda quota: quota.burst)
        yield Setting(policies, Timeline(least, random.choice(ORIGINS), random.choices(MOVES, k=length)))


def check_contracts(names: Sequence[str], count: int, length: int = 12) -> None:
    for policies, timeline in draw_settings(names, count, length):
        algorithm = Composite.of(policies)
        for contract in CONTRACTS:
            contract(algorithm, timeline)  # type: ignore[arg-type]


@every_pair
def test_every_pair_keeps_every_contract(names: tuple[str, ...]) -> None:
    check_contracts(names, 2)


@pytest.mark.slow
@pytest.mark.parametrize("names", TRIPLES, ids=" and ".join)
def test_every_triple_keeps_every_contract(names: tuple[str, ...]) -> None:
    check_contracts(names, 5)


@pytest.mark.slow
@every_pair
def test_every_pair_keeps_every_contract_on_long_timelines(names: tuple[str, ...]) -> None:
    check_contracts(names, 5, 30)


def check_models(names: Sequence[str], count: int) -> None:
    """Check that a composition admits what all models admit, and charges them then."""
    for policies, timeline in draw_settings(names, count):
        models = [MODELS[name](policy.quota) for name, policy in zip(names, policies, strict=True)]
        for now, cost, made, _ in run(Composite.of(policies), timeline):  # type: ignore[arg-type]
            allowed = all(model.admits(now, cost) for model in models)
            taken = cost if allowed else 0
            rows = [decide(model, policy.quota, now, taken) for model, policy in zip(models, policies, strict=True)]
            assert (made.allowed, made.remaining) == (allowed, min(row.remaining for row in rows))
            assert made.reset_after_ns == max(row.reset_after_ns for row in rows)
            assert made.delay_ns == (max(row.delay_ns for row in rows) if allowed else 0)


@every_pair
def test_every_pair_decides_as_its_models(names: tuple[str, ...]) -> None:
    if {*names} <= {*MODELS}:
        check_models(names, 1)


@pytest.mark.slow
@pytest.mark.parametrize("names", TRIPLES, ids=" and ".join)
def test_every_triple_decides_as_its_models(names: tuple[str, ...]) -> None:
    if {*names} <= {*MODELS}:
        check_models(names, 3)


def test_the_order_of_policies_does_not_matter() -> None:
    for names in TRIPLES[::5]:
        for policies, timeline in draw_settings(names, 1):
            runs = [
                [request.decision for request in run(Composite.of(order), timeline)]  # type: ignore[arg-type]
                for order in permutations(policies)
            ]
            assert all(decisions == runs[0] for decisions in runs)


def check_fast_decision(names: Sequence[str], count: int) -> None:
    """Check that the fast decision is the combined one, whatever earlier requests made it expect."""
    for policies, timeline in draw_settings(names, count, 30):
        kernel = Composite.of(policies)
        states: list[State] = [kernel.start(timeline.origin) for _ in range(2)]
        for now, cost, _, _ in run(kernel, timeline):  # type: ignore[arg-type]
            states[0], rows = kernel.decide(states[0], now, [cost] * len(policies))
            assert kernel.decide_together(states[1], now, cost) == kernel.combine(rows)


@pytest.mark.parametrize("names", [*PAIRS, *TRIPLES[::6]], ids=" and ".join)
def test_the_fast_decision_equals_the_combined_one(names: tuple[str, ...]) -> None:
    check_fast_decision(names, 4)


@pytest.mark.parametrize("bursts", [(9, 9), (2, 2), (2, 9), (9, 2)])
def test_every_further_decision_of_two_policies_takes_one_step_of_each(bursts: tuple[int, int]) -> None:
    steps = 0

    def count(part: Part) -> Part:
        def step(state: State, now: int, cost: int) -> Row:
            nonlocal steps
            steps += 1
            return part.step(state, now, cost)

        return part._replace(step=step)

    policies = [Policy.create("gcra", "1/day", burst, name=f"{place}") for place, burst in enumerate(bursts)]
    kernel = Composite([count(part) for part in Composite.of(policies).parts])
    state = kernel.start(0)
    for _ in range(3):
        kernel.decide_together(state, 0, 1)
    steps = 0
    decisions = [kernel.decide_together(state, 0, 1) for _ in range(5)]
    assert all(allowed == (bursts == (9, 9)) for allowed, *_ in decisions)
    assert steps == 10


@pytest.mark.parametrize("shadows", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("names", PAIRS[::4], ids=" and ".join)
def test_a_shadow_policy_decides_as_if_it_were_alone(names: tuple[str, ...], shadows: tuple[bool, ...]) -> None:
    for policies, timeline in draw_settings(names, 1, 30):
        pairs = zip(policies, shadows, strict=True)
        mixed = [Policy(one.name, one.quota, one.algorithm, shadow=shadow) for one, shadow in pairs]
        kernel, state = Composite.of(mixed), Composite.of(mixed).start(timeline.origin)
        alone = [one.start(timeline.origin) for one in mixed]
        for now, cost, _, _ in run(policies[0].algorithm, timeline):
            state, rows = kernel.decide(state, now, [cost] * 2)
            expected = [one.step(own, now, cost) for one, own in zip(mixed, alone, strict=True)]
            decision = kernel.combine(rows)
            assert [row for row, shadow in zip(rows, shadows, strict=True) if shadow] == [
                row for row, shadow in zip(expected, shadows, strict=True) if shadow
            ]
            denied = [(one.name, one.shadow) for one, row in zip(mixed, expected, strict=True) if not row[0]]
            assert decision[0] == all(shadow for _, shadow in denied)
            assert decision[6] == tuple(name for name, shadow in denied if shadow)


def test_a_tie_is_bound_by_the_first_policy() -> None:
    policies = [Policy.create("gcra", "1/min", name=name) for name in ("first", "second", "third")]
    rows = [(False, 0, 7, 9, 0), (False, 0, 9, 9, 0), (False, 0, 9, 9, 0)]
    assert combine(zip(policies, rows, strict=True)) == (False, 0, 9, 9, 0, "second", ())
    never = [(False, 0, NEVER, 9, 0), (True, 5, 0, 9, 3), (False, 0, NEVER, 9, 0)]
    assert combine(zip(policies, never, strict=True)) == (False, 0, NEVER, 9, 0, "first", ())


# --- charges without a decision

SECOND = 10**9


def state_after(policy: Policy, costs: Sequence[int], now: int) -> State:
    state: State = policy.start(now)
    for cost in costs:
        policy.charge(state, now, cost, now)
    return state


@pytest.mark.parametrize("name", CHARGED)
def test_a_refund_at_once_undoes_a_charge(name: str) -> None:
    policy, now = Policy.create(name, "2/s", 9), 1_700_000_000 * SECOND
    for charged, refunded in ((9, 4), (12, 5), (20, 20), (3, 2)):
        refunded_state = state_after(policy, [charged, -refunded], now)
        expected = state_after(policy, [charged - refunded], now)
        for later in (0, SECOND // 2, SECOND, 3 * SECOND, 9 * SECOND):
            if name != "sliding-log" or charged <= 9:  # whose oldest entries a charge beyond the burst replaces
                looks = [Composite.of([policy]).step([*state], now + later, 1) for state in (refunded_state, expected)]
                assert looks[0] == looks[1]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_refund_never_leaves_more_than_a_new_key_has(name: str) -> None:
    random = Random(name)
    policy = Policy.create(name, "2/s", 5)
    for _ in range(50):
        now = 1_700_000_000 * SECOND
        state: State = policy.start(now)
        for _ in range(20):
            charged_at, now = now, now + random.choice([0, SECOND // 4, SECOND, 3 * SECOND])
            policy.charge(state, now, random.choice([-9, -2, -1, 1, 2, 7]), random.choice([now, charged_at, None]))
            allowed, remaining, _, reset_after_ns, _ = Composite.of([policy]).step([*state], now, 0)
            assert allowed
            assert 0 <= remaining <= 5
            assert reset_after_ns >= 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_settled_costs_never_exceed_the_quota(name: str) -> None:
    """The cost that is admitted and not refunded is at most the bound of the algorithm, in all time since the start."""
    random = Random(name)
    quota = Quota.parse("2/s", 5)
    policy = Policy.create(name, quota)
    for _ in range(30):
        start = now = 1_700_000_000 * SECOND
        state, net, tickets = policy.start(now), 0, list[tuple[int, int]]()
        for _ in range(60):
            now += random.choice([0, 0, SECOND // 3, SECOND // 2])
            if tickets and random.random() < 0.4:
                at, cost = tickets.pop(random.randrange(len(tickets)))
                actual = random.randint(0, cost)
                policy.charge(state, now, actual - cost, at)
                net += actual - cost
            elif policy.step(state, now, cost := random.randint(1, 4))[0]:
                tickets.append((now, cost))
                net += cost
        elapsed = Fraction(now - start, SECOND) * 2
        assert net <= (2 if name in ("fixed-window", "sliding-counter") else 1) * quota.burst + elapsed


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_key_in_debt_waits_exactly_until_it_is_paid(name: str) -> None:
    policy, now = Policy.create(name, "2/s", 5), 1_700_000_000 * SECOND
    state = state_after(policy, [8], now)
    kernel = Composite.of([policy])
    allowed, remaining, _, _, _ = kernel.step([*state], now, 0)
    assert (allowed, remaining) == (True, 0)
    denied, remaining, retry_after_ns, reset_after_ns, _ = kernel.step([*state], now, 1)
    assert (denied, remaining) == (False, 0)
    assert kernel.step([*state], now + retry_after_ns, 1)[0]
    assert not kernel.step([*state], now + retry_after_ns - 1, 1)[0]
    assert kernel.step([*state], now + reset_after_ns, 0)[1] == 5


def test_windows_refund_only_what_still_counts() -> None:
    now = 1_700_000_000 * SECOND  # a window of 10 s begins
    for name, remaining in (("fixed-window", 10), ("sliding-counter", 5), ("sliding-log", 10)):
        policy = Policy.create(name, "10/10s")
        state = policy.start(now)
        policy.charge(state, now, 10, now)
        policy.charge(state, now + 15 * SECOND, -10, now)
        assert policy.step([*state], now + 15 * SECOND, 0)[1] == (10 if name == "sliding-counter" else remaining)
        policy.charge(state, now + 15 * SECOND, 4, None)
        policy.charge(state, now + 15 * SECOND, -10, now)
        assert policy.step([*state], now + 15 * SECOND, 0)[1] == 6


# --- mutants


def check_pairs() -> None:
    for names in PAIRS[::3]:
        check_contracts(names, 2)
        test_a_shadow_policy_decides_as_if_it_were_alone(names, (True, False))


MUTANTS = {
    "a denied hit charges the policies that admit it": ("decide", "if denied:", "if False:"),
    "a shadow policy denies": ("attempt", "denied or enforced", "True"),
    "a denied policy is charged": ("attempt", "if row is not None and not row[0]:", "if False:"),
    "an earlier part is written twice": ("attempt", "new += part", "new += state[begin:end] if enforced else part"),
}


COMBINED = {
    "the greatest quota remains": ("left < remaining", "left > remaining or remaining == NEVER"),
    "the shortest wait is enough": ("retry > retry_after_ns", "retry < retry_after_ns"),
    "the first policy resets all": ("reset > reset_after_ns", "not reset_after_ns"),
    "a shadow policy counts": ("if policy.shadow:", "if policy.shadow and allowed:"),
}


@pytest.mark.parametrize(("right", "wrong"), COMBINED.values(), ids=COMBINED)
def test_a_mutant_of_the_combined_fields_fails(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    monkeypatch.setattr(composite, "combine", rewritten(combine, right, wrong))
    with pytest.raises(AssertionError):
        check_pairs()


def check_fast_decisions() -> None:
    for names in [*PAIRS, *TRIPLES[::6]]:
        check_fast_decision(names, 4)


FAST = {
    "the other of two is charged": ("_decide_two", "part, delay = state[place], 0", "delay = 0"),
    "the other of two is not looked at": ("_decide_two", "step(part, now, 0)", "(True, left, 0, reset, 0)"),
    "the other of two is assumed to admit": ("_decide_two", "if tried else cost > other_left", "if tried else False"),
    "the other of two is assumed to deny": ("_decide_two", "admitted if tried else", "False if tried else"),
    "the other of two is charged where both denied": ("_decide_two", "other_part = state[other_place]", "pass"),
    "a tie is bound by the policy that is asked first": ("_decide_two", "if other_retry == retry", "if False"),
    "the shorter wait of two is enough": ("_decide_two", "if other_retry > retry", "if other_retry < retry"),
    "the greater quota of two remains": ("_decide_two", "if other_left < left", "if other_left > left"),
    "the first of two resets both": ("_decide_two", "if other_reset > reset", "if False"),
    "the first of two delays": ("_decide_two", "if other_delay > delay", "if False"),
    "one of three is charged": ("_decide_alike", "if 0 < denied < len(self._named_steps):", "if False:"),
    "one of three is not looked at": ("_decide_alike", "if name != bound_by:", "if False:"),
    "a denied request of three is delayed": ("_decide_alike", "0 if denied else delay_ns", "delay_ns"),
}


@pytest.mark.parametrize(
    ("check", "method", "right", "wrong"),
    [
        *(pytest.param(check_pairs, *mutant, id=name) for name, mutant in MUTANTS.items()),
        *(pytest.param(check_fast_decisions, *mutant, id=name) for name, mutant in FAST.items()),
    ],
)
def test_a_mutant_of_the_composition_fails(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[], None], method: str, right: str, wrong: str
) -> None:
    monkeypatch.setattr(Composite, method, rewritten(getattr(Composite, method), right, wrong))
    with pytest.raises(AssertionError):
        check()
