"""Equal protection: the burst found for each algorithm is that of an exhaustive search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_json, get_output
from drawn_rows import draw_rows
from durations import SECOND
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_runs import count_windows, create_column

from ratelab import Quota, create
from ratelab.algorithms import COMPARED
from ratelab.cli.output import create_console
from ratelab.lab.comparison import compare, with_equal_protection
from ratelab.lab.equal_protection import BURSTS_AHEAD, EqualProtection, find_first, find_good_requests
from ratelab.lab.replay import replay
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Traffic
from ratelab.report.equal_protection import build_equal_table
from ratelab.report.tables import render_table

QUOTA = Quota(2, 7, 3)

arrivals = draw_rows(range(10), range(2), (1, 1, 1, 2), max_size=25)


def create_traffic(drawn: list[tuple[int, int, int]]) -> Traffic:
    gaps, clients, costs = (create_column([request[column] for request in drawn]) for column in range(3))
    times = gaps.cumsum()
    return Traffic(times, clients, costs, ("a", "b"), create_column([0, 1]), int(times.max(initial=0)) + 1)


def find_equal_protection(traffic: Traffic, quota: Quota = QUOTA, names: Sequence[str] = COMPARED) -> EqualProtection:
    comparison = compare([create(name, quota) for name in names], traffic)
    found = with_equal_protection(comparison).equal_protection
    assert found is not None
    return found


def measure_burst(traffic: Traffic, algorithm: str, burst: int) -> tuple[int, int]:
    """Return the largest cost in a window of the quota, and the denied requests, of an algorithm with another burst."""
    decisions = replay(create(algorithm, QUOTA, burst), traffic).rows
    rows = zip(
        traffic.times.tolist(), traffic.costs.tolist(), traffic.clients.tolist(), decisions.tolist(), strict=True
    )
    left = [(at + delay, cost, key) for at, cost, key, (allowed, *_, delay) in rows if allowed]
    return max(count_windows(left, QUOTA.window).values(), default=0), len(decisions) - len(left)


@settings(max_examples=40)
@given(arrivals)
@example([(0, 0, 1)] * 9 + [(6, 0, 1)] * 9)
def test_the_burst_fits_and_no_larger_one_does_or_nothing_is_denied(drawn: list[tuple[int, int, int]]) -> None:
    traffic = create_traffic(drawn)
    found = find_equal_protection(traffic)
    most = max(1, *create_column([cost for _, _, cost in drawn] or [1]).cumsum())  # that a key could use
    for equal in found.results:
        peak, denied = measure_burst(traffic, equal.result.algorithm, equal.burst)
        assert (equal.result.peak_in_window, equal.result.denied) == (peak, denied)
        assert equal.fits == (peak <= found.target)
        if equal.result.algorithm == "sliding-log":
            assert (equal.burst, equal.result) == (QUOTA.burst, equal.at_quota)
        elif denied:
            larger = range(equal.burst + 1, min(equal.burst + BURSTS_AHEAD, most) + 1)
            assert all(measure_burst(traffic, equal.result.algorithm, burst)[0] > found.target for burst in larger)
            assert equal.fits or equal.burst == 1


def test_a_burst_that_fits_is_found_beyond_one_that_does_not() -> None:
    times = [at * SECOND for at in (1, 10, 10, 13, 13, 22, 29, 31)]
    traffic = Traffic(
        create_column(times), create_column([0] * 8), create_column([1] * 8), ("a",), create_column([0]), times[-1] + 1
    )
    found = find_equal_protection(traffic, Quota.parse("2/7s", 3), ["fixed-window"])
    (equal,) = found.results
    assert (found.target, equal.burst, equal.fits) == (3, 4, True)


@given(st.integers(1, 60), st.integers(1, 60), st.sets(st.integers(1, 60)))
def test_the_search_ends_at_a_number_where_the_condition_starts(start: int, last: int, holding: set[int]) -> None:
    found = find_first(lambda number: number in holding, start, last)
    assert 1 <= found <= last
    assert found in holding or found == last
    assert found == 1 or found - 1 not in holding


@given(arrivals)
def test_a_good_request_is_within_the_quota_whatever_was_decided(drawn: list[tuple[int, int, int]]) -> None:
    traffic = create_traffic(drawn)
    requests = list(zip(traffic.times.tolist(), traffic.costs.tolist(), traffic.clients.tolist(), strict=True))
    expected = [
        sum(cost for at, cost, other in requests[: number + 1] if other == key and at + QUOTA.window > now)
        <= QUOTA.burst
        for number, (now, _, key) in enumerate(requests)
    ]
    assert find_good_requests(QUOTA, traffic)[:].tolist() == expected


def test_json_has_the_burst_of_each_algorithm() -> None:
    plain, both = get_json("simulate", BURST), get_json("simulate", BURST, "--equalize", "peak")
    found = both.pop("equal_protection")
    assert both == plain
    assert (found["peak_in_window"], found["good"]) == (5, 10)
    rows = {row["algorithm"]: (row["burst"], row["peak_in_window"], row["denied"]) for row in found["results"]}
    assert rows == {
        "token-bucket": (3, 5, 18),
        "leaky-bucket": (21, 5, 0),
        "fixed-window": (4, 5, 18),
        "sliding-log": (5, 5, 18),
        "sliding-counter": (6, 5, 18),
    }
    counter = found["results"][-1]
    assert (counter["fits"], counter["at_quota_good_denied"], counter["good_denied"]) == (True, 1, 0)
    assert counter["overshoot"] == 1  # of the quota's burst


@pytest.mark.slow
def test_the_table_names_algorithms_that_no_burst_fits_and_waits() -> None:
    text = get_output("simulate", SCENARIOS / "overload.yaml", "--equalize", "peak")
    assert [line for line in text.splitlines() if len(line.rstrip()) > 80] == []
    assert re.search(r"^fixed-window +5 -> 1! +10 -> 6 ", text, re.MULTILINE)
    closing = " ".join(text.partition("no burst tried fits")[2].split())
    assert "No burst tried gives fixed-window this protection: even with a burst of 1, it lets 6 through." in closing
    assert (
        "Good requests denied at equal protection: leaky-bucket and sliding-log none, sliding-counter 1, "
        "token-bucket 3. All requests denied: "
    ) in closing
    assert "leaky-bucket delayed 5,977 by up to 39 min 49 s, 5,951 of them beyond the client timeout" in closing
    assert "the same burst is not the same protection" in closing


def test_figures_too_long_for_a_line_are_on_two(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = load_scenario(BURST)
    comparison = compare([create(name, scenario.open_loop_quota) for name in COMPARED], scenario.traffic)
    found = find_equal_protection(scenario.traffic, scenario.open_loop_quota)
    results = [
        replace(
            equal,
            good_denied=1_234_567,
            at_quota_good_denied=1_234_567,
            at_quota=replace(equal.at_quota, denied=12_345_678),
            result=replace(equal.result, denied=23_456_789),
        )
        for equal in found.results
    ]
    table = build_equal_table(replace(comparison, equal_protection=replace(found, results=tuple(results))))
    assert table is not None
    create_console().print(render_table(table))
    lines = capsys.readouterr().out.splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("sliding-counter"))
    assert lines[row].split() == ["sliding-counter", "5", "4", "12,345,678", "1,234,567", "0"]
    assert lines[row + 1].replace("-> ", "").split() == ["6", "5", "23,456,789", "1,234,567", "0"]


def test_a_burst_that_denies_nothing_is_kept_and_waits_are_reported() -> None:
    text = " ".join(get_output("simulate", SCENARIOS / "on-off.yaml", "--equalize", "peak").split())
    assert "token-bucket 10 -> 10 " in text
    assert "leaky-bucket 10 -> 10 " in text
    waits = " ".join(get_output("simulate", BURST, "--equalize", "peak").split())
    assert "leaky-bucket denies fewer requests with a burst of 21 only because it delays them longer: by up to" in waits


def test_why_the_comparisons_differ_is_printed_only_if_they_do() -> None:
    same = get_output("simulate", BURST, "--algo", "sliding-log", "--equalize", "peak")
    assert "Equal protection: " in same
    assert "Why the two comparisons differ" not in same


def test_without_denials_there_is_nothing_to_compare() -> None:
    text = get_output("simulate", SCENARIOS / "steady.yaml", "--equalize", "peak")
    assert "nothing to compare at equal protection" in " ".join(text.split())


def test_without_good_requests_all_requests_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "costly.yaml"
    path.write_text(Path(BURST).read_text(encoding="utf-8") + "    cost: 9\n")
    text = " ".join(get_output("simulate", path, "--equalize", "peak").split())
    assert (
        "at most 5 in the 2.5 s up to it; none of 30 requests is good. "
        "Requests denied at equal protection: 30 by each algorithm." in text
    )
    assert "Every algorithm denied all 30 requests. 30 requests cost more than the burst of 5" in text


def test_a_burst_below_the_cost_of_grantable_requests_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "costly.yaml"
    path.write_text(Path(BURST).read_text(encoding="utf-8") + "    cost: {1: 0.8, 4: 0.1, 9: 0.1}\n")
    text = " ".join(get_output("simulate", path, "--equalize", "peak").split())
    assert "5 requests cost more than the burst of 5 and can never be admitted." in text
    assert (
        "With the bursts found, token-bucket, fixed-window and sliding-counter can never admit some requests that the "
        "quota allows, because they cost more."
    ) in text


def test_equal_protection_needs_the_exact_log() -> None:
    message = get_error(
        "simulate", BURST, "--rate", "1000/s", "--burst", "2000000", "--algo", "gcra", "--equalize", "peak"
    )
    assert "cannot hold a burst of 2000000: lower the burst" in message
