"""Tuning: predicted denials are those of a replay, and the recommendation separates planted outliers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from drawn_rows import draw_rows
from hypothesis import given
from hypothesis import strategies as st
from slow_parameters import mark_slow

from ratelab.algorithms import ALGORITHMS, build_policy, traits_of
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.errors import InputError
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune import measure_frontier, tune
from ratelab.lab.tune.curves import measure_curves, measure_grid
from ratelab.lab.tune.outliers import find_outliers
from ratelab.lab.tune.tuning import count_work
from ratelab.limiter import Algorithm, Row, State
from ratelab.quota import LARGEST, NS_PER_S, Quota
from ratelab.report.tune_tables import find_recommended_rate

HOUR = 3600 * NS_PER_S

BUILT_IN = [
    ALGORITHMS[name]
    for name in ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")
]

NEED_ALGORITHMS = [kind for kind in ALGORITHMS.values() if traits_of(kind).admits_need]


def build_traffic(rows: list[tuple[int, int, int]], keys: int) -> Traffic:
    """Build traffic of these times, clients and costs."""
    times, clients, costs = (np.array(column, np.int64) for column in zip(*sorted(rows), strict=True))
    names = tuple(f"client-{key}" for key in range(keys))
    return Traffic(times, clients, costs, names, np.arange(keys), int(times[-1]) + 1)


def build_population(outliers: int, factor: int, seed: int = 1, clients: int = 2000) -> Traffic:
    """Build an hour of clients that send 1 to 9 requests at once, and outliers that send `factor` times as many."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 10, clients) * np.where(np.arange(clients) < outliers, factor, 1)
    sizes[:outliers] = 9 * factor
    owners = np.repeat(np.arange(clients), sizes)
    times = np.repeat(random.integers(0, HOUR, clients), sizes) + random.integers(0, NS_PER_S, len(owners))
    order = np.argsort(times, kind="stable")
    names = tuple(f"client-{number}" for number in range(clients))
    ones = np.ones(len(owners), np.int64)
    return Traffic(times[order], owners[order], ones, names, np.arange(clients), HOUR + NS_PER_S)


requests = draw_rows(range(51), range(4), range(1, 5), min_size=1, max_size=40)
quotas = st.builds(Quota, st.integers(1, 4), st.integers(1, 20), st.integers(1, 12))


@pytest.mark.parametrize("algorithm", NEED_ALGORITHMS, ids=lambda algorithm: algorithm.name)
@given(rows=requests, quota=quotas)
def test_a_client_is_denied_if_and_only_if_it_needs_more_than_the_burst(
    algorithm: type[Algorithm], rows: list[tuple[int, int, int]], quota: Quota
) -> None:
    traffic = build_traffic(rows, 4)
    allowed = replay(build_policy(algorithm, quota), traffic).decisions["allowed"]
    denied = {*traffic.request_keys[~allowed].tolist()}
    assert {*np.flatnonzero(measure_frontier(traffic).find_needs(quota) > quota.burst).tolist()} == denied


@given(rows=requests, kinds=st.permutations(BUILT_IN), rate=st.integers(1, 9))
def test_every_candidate_counts_what_a_replay_of_all_traffic_denies(
    rows: list[tuple[int, int, int]], kinds: list[type[Algorithm]], rate: int
) -> None:
    traffic = build_traffic(rows, 4)
    tuning = tune(traffic, [Quota(rate, 20)], kinds=kinds, holdout=Fraction(0))
    assert len(tuning.tightest) == len(kinds)
    for candidate in (tuning.recommended, *tuning.tightest):
        allowed = replay(candidate.policy, traffic).decisions["allowed"]
        assert candidate.requests_denied == int((~allowed).sum())
        assert candidate.clients_denied == len({*traffic.request_keys[~allowed].tolist()})


class Deny(TokenBucket):
    """Denies everything."""

    name = "deny"

    def step(self, state: State, now: int, cost: int) -> Row:
        """Deny the request."""
        return False, 0, 1, 1, 0


def test_an_algorithm_that_denies_everything_is_an_error() -> None:
    traffic = build_traffic([(time, time % 3, 1) for time in range(30)], 3)
    with pytest.raises(InputError) as error:
        tune(traffic, [Quota.parse("1/s")], kinds=[Deny])
    assert str(error.value) == "deny denies too many clients with every burst up to 30: leave it out"


@pytest.mark.parametrize("outliers", [1, 10])
@pytest.mark.parametrize("factor", mark_slow([3, 30, 1000], [30]))
def test_planted_outliers_lie_above_the_gap(outliers: int, factor: int) -> None:
    tuning = tune(build_population(outliers, factor), [Quota.parse("1/s")])
    gap = tuning.rates[0].gap
    assert gap is not None
    assert gap.clients_above == outliers
    assert tuning.recommended.clients_denied == outliers
    assert gap.below <= tuning.recommended.policy.quota.burst < gap.above


def test_outliers_change_the_recommended_quota_by_at_most_a_factor_of_two() -> None:
    found, without = (
        tune(build_population(outliers, 100), holdout=Fraction(0)).recommended.policy.quota for outliers in (10, 0)
    )
    assert without.burst <= found.burst <= 2 * without.burst
    assert Fraction(1, 2) <= Fraction(found.limit * without.period, found.period * without.limit) <= 2


def test_too_few_clients_give_the_tolerance_that_they_support() -> None:
    tuning = tune(build_traffic([(0, key, 1) for key in range(9)], 9), tolerate=Fraction(1, 1000))
    assert (tuning.tolerate, tuning.asked) == (Fraction(1, 10), Fraction(1, 1000))


def test_the_holdout_is_the_last_part_of_the_time() -> None:
    rows = [(time * NS_PER_S, time % 5, 1) for time in range(90)] + [(80 * NS_PER_S, 0, 50)]
    holdout = tune(build_traffic(rows, 5), holdout=Fraction(1, 3)).holdout
    assert holdout is not None
    assert (holdout.clients, holdout.clients_denied, holdout.clients_denied_ratio) == (5, 1, 0.2)


def test_requests_of_one_moment_have_no_holdout() -> None:
    assert tune(build_traffic([(5, 0, 1), (5, 1, 1)], 2)).holdout is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerate": Fraction(1)}, "the tolerance must be at least 0 and below 1, got 1: try 1/1000"),
        ({"holdout": Fraction(1)}, "the holdout must be at least 0 and below 1, got 1: try 1/3, or 0 for none"),
    ],
)
def test_an_option_out_of_range_is_rejected(options: dict[str, Fraction], message: str) -> None:
    with pytest.raises(InputError) as error:
        tune(build_traffic([(0, 0, 1)], 1), **options)  # type: ignore[arg-type]
    assert str(error.value) == message


@pytest.mark.slow
def test_bots_and_a_health_check_change_the_burst_by_at_most_a_factor_of_two() -> None:
    random = np.random.default_rng(1)
    rows = []
    for client in range(1000):
        for begin in random.uniform(0, 12 * HOUR, 2):
            gaps = random.exponential(4 * NS_PER_S, 12)
            rows += [(int(begin + time), client, 1) for time in np.cumsum(gaps)]
            rows += [(int(begin), client, 1)] * int(random.integers(3, 12))
    bots = [(number * 10 * NS_PER_S, 1000, 1) for number in range(4320)]
    bots += [(int(time), 1001, 1) for time in random.uniform(0, HOUR, 9000)]
    found, cleaned = (tune(build_traffic(part, 1002)).recommended for part in (rows + bots, rows))
    assert (found.clients_denied, cleaned.clients_denied) == (
        1,
        0,
    )  # the health check needs less than an ordinary client
    assert (found.policy.quota.limit, found.policy.quota.period) == (
        cleaned.policy.quota.limit,
        cleaned.policy.quota.period,
    )
    assert cleaned.policy.quota.burst <= found.policy.quota.burst <= 2 * cleaned.policy.quota.burst


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", BUILT_IN, ids=lambda algorithm: algorithm.name)
def test_every_algorithm_is_recommended_with_a_burst_for_the_ordinary_clients(algorithm: type[Algorithm]) -> None:
    tuning = tune(build_population(5, 100), [Quota.parse("1/min")], kinds=[algorithm])
    assert tuning.recommended.clients_denied == 5
    assert find_outliers(tuning)[0] == 5


def test_a_rate_within_the_tolerance_is_preferred() -> None:
    # Four clients are above the gap at 10/min. At 20/min, two are, and the others need little more.
    slow = [(place * 7 * NS_PER_S // 2, client, 1) for place in range(1000) for client in (1998, 1999)]
    fast = [(second * NS_PER_S, client, 1) for second in range(3500) for client in (1996, 1997)]
    rows = [(client * NS_PER_S, client, 1) for client in range(1996) for _ in range(1 + client % 5)]
    traffic = build_traffic(rows + slow + fast, 2000)
    rates = [Quota.parse("10/min"), Quota.parse("20/min")]
    tuning = tune(traffic, rates, Fraction(1, 1000))
    assert [row.is_tolerated for row in tuning.rates] == [False, True]
    assert (tuning.recommended.policy.quota.rate, tuning.recommended.clients_denied) == ("20/min", 2)
    assert tune(traffic, rates[:1], Fraction(1, 1000)).recommended.clients_denied == 4


def test_an_impossible_quota_is_left_out_if_others_are_possible() -> None:
    traffic = build_traffic([(time * NS_PER_S, time % 3, 10**6) for time in range(60)], 3)
    tuning = tune(traffic, [Quota(1, 10**17), Quota.parse("100000/s")])
    assert tuning.recommended.policy.quota.rate == "100000/s"
    assert [candidate.policy.quota.rate for candidate in tuning.tightest] == ["100000/s"]


def test_a_short_trace_gets_a_rate_that_refills_the_burst_within_an_hour() -> None:
    quota = tune(build_traffic([(0, 0, 3), (NS_PER_S, 1, 1)], 2)).recommended.policy.quota
    assert quota.window <= HOUR


def test_a_jump_of_needs_below_the_99th_percentile_is_known() -> None:
    rows = [(client * NS_PER_S, client, 1) for client in range(150)] + [(0, client, 1) for client in (0, 1, 2)] * 50
    row = tune(build_traffic(rows, 150), [Quota.parse("1/min")]).rates[0]
    assert row.gap is None
    assert row.lower_gap is not None
    assert (row.lower_gap.below, row.lower_gap.clients_above) == (1, 3)


def test_progress_counts_the_check_on_the_last_part() -> None:
    traffic, done = build_population(3, 30), [0]

    def count(more: int) -> None:
        done[0] += more

    tune(traffic, [Quota.parse("1/s")], progress=count)
    assert done[0] == count_work(traffic, Fraction(1, 3)) == 2 * len(traffic)


def test_a_rate_counts_once() -> None:
    rates = [Quota.parse(rate) for rate in ("60/h", "1/min", "2/min")]
    assert len(tune(build_traffic([(0, 0, 1)], 1), rates).rates) == 2


@pytest.mark.parametrize("rate", [Quota(1, 10**17), Quota(LARGEST, NS_PER_S), Quota(1, LARGEST)])
def test_rates_of_extreme_size_have_curves_and_a_grid(rate: Quota) -> None:
    tuning = tune(build_traffic([(time, time % 3, 1) for time in range(30)], 3), [rate, Quota.parse("7/min")])
    assert len(measure_curves(tuning).rates) > 1
    assert (measure_grid(tuning).clients_denied <= 3).all()
    assert find_recommended_rate(tuning).rate.rate == tuning.recommended.policy.quota.rate
