"""Tuning against direct models on many clients, the guarantee of a tolerance, planted outliers and extreme traffic."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import accumulate
from math import ceil

import numpy as np
import pytest

from ratelab.algorithms import ALGORITHMS, build_policy
from ratelab.errors import InputError
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune import measure_frontier, tune
from ratelab.lab.tune.population import ClientNeeds
from ratelab.lab.tune.queries import find_deniable
from ratelab.quota import LARGEST, NS_PER_S, UNITS, Quota

HOUR = UNITS["h"]


def build_traffic(times: list[int], owners: list[int], costs: list[int], clients: int) -> Traffic:
    """Build traffic of requests in any order."""
    order = np.argsort(np.array(times, np.int64), kind="stable")
    when, who, cost = (np.array(column, np.int64)[order] for column in (times, owners, costs))
    names = tuple(f"client-{client}" for client in range(clients))
    return Traffic(when, who, cost, names, np.arange(clients), max(times) + 1)


def draw_clients(seed: int, clients: int) -> tuple[Traffic, list[list[tuple[int, int]]]]:
    """Draw clients with one to eleven requests: ties, gaps of nanoseconds and of years, small and large costs."""
    random = np.random.default_rng(seed)
    requests: list[list[tuple[int, int]]] = []
    for size in random.integers(1, 12, clients).tolist():
        gaps = 10 ** random.integers(0, random.choice([2, 10, 16]), size) * random.integers(0, 3, size)
        costs = random.integers(1, random.choice([2, 4, 10**6]), size)
        requests.append(list(zip(accumulate(gaps.tolist()), costs.tolist(), strict=True)))
    rows = [(time, client, cost) for client, own in enumerate(requests) for time, cost in own]
    times, owners, costs_ = (list(column) for column in zip(*rows, strict=True))
    return build_traffic(times, owners, costs_, clients), requests


def find_need(requests: list[tuple[int, int]], rate: Quota) -> int:
    """Compute a need by its definition: over all pairs of a first and a last request."""
    most = Fraction(0)
    for first, (begin, _) in enumerate(requests):
        total = 0
        for end, cost in requests[first:]:
            total += cost
            most = max(most, total - Fraction(rate.limit * (end - begin), rate.period))
    return ceil(most)


@pytest.mark.slow
def test_needs_of_thousands_of_clients_are_those_of_the_definition() -> None:
    traffic, requests = draw_clients(0, 5_000)
    frontier = measure_frontier(traffic)
    for rate in (Quota.parse("2/s"), Quota(7, 3), Quota.parse("5/day")):
        assert frontier.find_needs(rate).tolist() == [find_need(own, rate) for own in requests]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_fifty_quotas_deny_only_the_predicted_clients(algorithm: type) -> None:
    traffic, _ = draw_clients(9, 400)
    frontier, random = measure_frontier(traffic), np.random.default_rng(1)
    for _ in range(50):
        period = int(10 ** random.integers(0, 12))
        quota = Quota(int(random.integers(1, 5)), period, int(random.integers(1, 40)))
        policy = build_policy(algorithm, quota)
        allowed = replay(policy, traffic).decisions["allowed"]
        denied = np.zeros(traffic.key_count, np.bool_)
        denied[traffic.request_keys[~allowed]] = True
        predicted = find_deniable(policy, frontier)
        assert not (denied & ~predicted).any()
        if policy.name in ("token-bucket", "leaky-bucket", "gcra"):
            assert (denied == predicted).all()


@pytest.mark.parametrize(("clients", "tolerate"), [(199, Fraction(1, 20)), (999, Fraction(1, 100))])
def test_the_denied_share_of_further_clients_keeps_its_guarantee(clients: int, tolerate: Fraction) -> None:
    shares = []
    for seed in range(200):
        needs = np.ceil(np.random.default_rng(seed).pareto(1.2, clients) * 1000).astype(np.int64) + 1
        burst = ClientNeeds.sort(needs, np.ones(clients, np.int64)).tolerated_burst(tolerate)
        assert burst is not None
        shares.append(float((1 + (burst - 1) / 1000) ** -1.2))  # the tail of the population beyond the burst
    mean, rank = float(np.mean(shares)), ceil((clients + 1) * (1 - tolerate))
    spread = (rank * (clients + 1 - rank) / ((clients + 1) ** 2 * (clients + 2))) ** 0.5  # of Beta(rank, K + 1 - rank)
    assert mean <= float(tolerate) + 3 * spread / 200**0.5
    assert np.mean(np.array(shares) > float(tolerate) + 3 * spread) <= 0.02


def plant(abusers: int, factor: int, clients: int = 10_000) -> Traffic:
    """Build an hour of clients that send 1 to 9 requests within a second, and abusers that send `factor` times 9."""
    random = np.random.default_rng(abusers * factor)
    sizes = random.integers(1, 10, clients)
    sizes[:abusers] = 9 * factor
    sizes[abusers] = 9
    owners = np.repeat(np.arange(clients), sizes)
    times = np.repeat(random.integers(0, HOUR, clients), sizes) + random.integers(0, NS_PER_S, len(owners))
    return build_traffic(times.tolist(), owners.tolist(), [1] * len(owners), clients)


@pytest.mark.slow
@pytest.mark.parametrize(("abusers", "factor"), [(1, 1000), (10, 30), (100, 3)])
def test_planted_abusers_among_ten_thousand_clients_are_separated(abusers: int, factor: int) -> None:
    tuning = tune(plant(abusers, factor), [Quota.parse("1/min")], holdout=Fraction(0))
    gap = tuning.rates[0].gap
    assert gap is not None
    assert (gap.clients_above, tuning.recommended.clients_denied) == (abusers, abusers)
    assert gap.below <= 9


# --- extreme traffic


def test_one_client_supports_a_tolerance_of_a_half() -> None:
    tuning = tune(build_traffic([0, 5, 9], [0, 0, 0], [1, 1, 1], 1))
    assert (tuning.clients, tuning.tolerate, tuning.rates[0].gap) == (1, Fraction(1, 2), None)
    assert tuning.recommended.clients_denied == 0


def test_clients_that_are_all_alike_have_no_gap() -> None:
    tuning = tune(build_traffic([*range(200)] * 3, [*range(200)] * 3, [1] * 600, 200))
    assert {row.gap for row in tuning.rates} == {None}
    assert (tuning.recommended.policy.quota.burst, tuning.recommended.clients_denied) == (5, 0)


def test_traffic_shorter_than_a_window_is_covered() -> None:
    tuning = tune(build_traffic([0] * 50, [0] * 50, [1] * 50, 1), [Quota.parse("1/day")])
    assert tuning.recommended.policy.quota.window > tuning.traffic.duration
    assert (tuning.recommended.policy.quota.burst, tuning.recommended.clients_denied) == (75, 0)


@pytest.mark.parametrize("cost", [10**3, 10**6, 10**12])
def test_costs_above_every_rate_get_rates_of_their_size(cost: int) -> None:
    times = [second * NS_PER_S for second in range(300)]
    tuning = tune(build_traffic(times, [second % 3 for second in range(300)], [cost] * 300, 3))
    quota = tuning.recommended.policy.quota
    assert tuning.recommended.clients_denied == 0
    assert cost <= quota.burst <= 100 * cost
    assert quota.window <= HOUR


def test_costs_beyond_64_bits_are_an_error() -> None:
    with pytest.raises(InputError, match="costs must add up to at most"):
        tune(build_traffic([0, 1], [0, 0], [LARGEST, LARGEST], 1))


def test_no_requests_are_an_error() -> None:
    none = np.empty(0, np.int64)
    empty = Traffic(none, none, none, (), none, 1)
    with pytest.raises(InputError, match="there are no requests to choose a limit from"):
        tune(empty)


@pytest.mark.slow
def test_two_million_distinct_clients_take_bounded_memory() -> None:
    count = 2_000_000
    numbers = np.arange(count)
    traffic = Traffic(numbers * 1000, numbers, np.ones(count, np.int64), ("x",) * count, numbers, count * 1000)
    tracemalloc.start()
    needs = measure_frontier(traffic).find_needs(Quota.parse("1/s"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (needs == 1).all()
    assert peak <= 125 * count
