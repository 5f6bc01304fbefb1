"""Equal protection: the burst found for each algorithm is the one that trying them all would find."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, refused, shown, told
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_runs import SECOND, integers, windows_counted

from ratelab import Quota, create
from ratelab.algorithms import COMPARED, find
from ratelab.cli.output import console_of_80
from ratelab.lab.comparison import compare
from ratelab.lab.equal_protection import AHEAD, EqualProtection, first, good_requests
from ratelab.lab.replay import replay
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Traffic
from ratelab.report.equal_protection import equal_table

QUOTA = Quota(2, 7, 3)

visits = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1), st.sampled_from([1, 1, 1, 2])), max_size=25)


def traffic_of(drawn: list[tuple[int, int, int]]) -> Traffic:
    gaps, clients, costs = (integers([one[column] for one in drawn]) for column in range(3))
    times = gaps.cumsum()
    return Traffic(times, clients, costs, ("a", "b"), integers([0, 1]), int(times.max(initial=0)) + 1)


def equalised(traffic: Traffic, quota: Quota = QUOTA) -> EqualProtection:
    found = compare(quota, traffic, [find(name) for name in COMPARED], at_equal_protection=True).equalised
    assert found is not None
    return found


def with_burst(traffic: Traffic, algorithm: str, burst: int) -> tuple[int, int]:
    """Return one algorithm's worst window with another burst, as long as the quota's, and whom it denied."""
    made = replay(create(algorithm, QUOTA, burst), traffic)
    rows = zip(traffic.times.tolist(), traffic.costs.tolist(), traffic.clients.tolist(), made.tolist(), strict=True)
    left = [(at + delay, cost, key) for at, cost, key, (allowed, *_, delay) in rows if allowed]
    return max(windows_counted(left, QUOTA.window).values(), default=0), len(made) - len(left)


@settings(max_examples=40)
@given(visits)
@example([(0, 0, 1)] * 9 + [(6, 0, 1)] * 9)
def test_the_burst_found_fits_and_no_larger_one_does_or_nobody_is_denied(drawn: list[tuple[int, int, int]]) -> None:
    traffic = traffic_of(drawn)
    found = equalised(traffic)
    most = max(1, *integers([cost for _, _, cost in drawn] or [1]).cumsum())  # that a key could use
    for equal in found.equals:
        peak, denied = with_burst(traffic, equal.result.algorithm, equal.burst)
        assert (equal.result.peak_in_window, equal.result.denied) == (peak, denied)
        assert equal.fits == (peak <= found.target)
        if equal.result.algorithm == "sliding-log":
            assert (equal.burst, equal.result) == (QUOTA.burst, equal.at_quota)
        elif denied:
            larger = range(equal.burst + 1, min(equal.burst + AHEAD, most) + 1)
            assert all(with_burst(traffic, equal.result.algorithm, burst)[0] > found.target for burst in larger)
            assert equal.fits or equal.burst == 1


def test_a_burst_that_fits_beyond_one_that_does_not_is_found() -> None:
    times = [at * SECOND for at in (1, 10, 10, 13, 13, 22, 29, 31)]
    traffic = Traffic(integers(times), integers([0] * 8), integers([1] * 8), ("a",), integers([0]), times[-1] + 1)
    found = compare(Quota.parse("2/7s", 3), traffic, [find("fixed-window")], at_equal_protection=True).equalised
    assert found is not None
    (equal,) = found.equals
    assert (found.target, equal.burst, equal.fits) == (3, 4, True)


@given(st.integers(1, 60), st.integers(1, 60), st.sets(st.integers(1, 60)))
def test_a_search_ends_where_it_begins_to_hold(start: int, last: int, holding: set[int]) -> None:
    found = first(lambda number: number in holding, start, last)
    assert 1 <= found <= last
    assert found in holding or found == last
    assert found == 1 or found - 1 not in holding


@given(visits)
def test_a_good_request_keeps_within_the_quota_whatever_became_of_the_rest(drawn: list[tuple[int, int, int]]) -> None:
    traffic = traffic_of(drawn)
    asked = list(zip(traffic.times.tolist(), traffic.costs.tolist(), traffic.clients.tolist(), strict=True))
    expected = [
        sum(cost for at, cost, own in asked[: number + 1] if own == key and at + QUOTA.window > now) <= QUOTA.burst
        for number, (now, _, key) in enumerate(asked)
    ]
    assert good_requests(QUOTA, traffic)[:].tolist() == expected


def test_json_tells_the_burst_that_each_takes() -> None:
    plain, both = told("simulate", BURST), told("simulate", BURST, "--equalise", "peak")
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


def test_the_table_says_whom_no_burst_holds_and_what_a_queue_costs() -> None:
    text = shown("simulate", SCENARIOS / "overload.yaml", "--equalise", "peak")
    assert [line for line in text.splitlines() if len(line.rstrip()) > 80] == []
    assert re.search(r"^fixed-window +5 -> 1! +10 -> 6 ", text, re.MULTILINE)
    closing = " ".join(text.partition("no burst tried fits")[2].split())
    assert "No burst tried holds fixed-window to that: with 1 it still lets 6 through." in closing
    assert "of 5 good requests denied: leaky-bucket and sliding-log none, sliding-counter 1, token-bucket 3." in closing
    assert "leaky-bucket made 5,977 wait, up to 39.8min." in closing
    assert "the same burst is not the same protection" in closing


def test_figures_too_long_for_a_line_stand_on_two(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = load_scenario(BURST)
    comparison = compare(scenario.quota, scenario.traffic, [*map(find, COMPARED)], at_equal_protection=True)
    assert comparison.equalised is not None
    equals = [
        replace(
            one,
            good_denied=1_234_567,
            at_quota_good_denied=1_234_567,
            at_quota=replace(one.at_quota, denied=12_345_678),
            result=replace(one.result, denied=23_456_789),
        )
        for one in comparison.equalised.equals
    ]
    console_of_80().print(equal_table(comparison, replace(comparison.equalised, equals=tuple(equals))))
    lines = capsys.readouterr().out.splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("sliding-counter"))
    assert lines[row].split() == ["sliding-counter", "5", "4", "12,345,678", "1,234,567", "0"]
    assert lines[row + 1].replace("-> ", "").split() == ["6", "5", "23,456,789", "1,234,567", "0"]


def test_a_burst_that_fits_and_denies_nobody_is_kept_and_a_longer_wait_is_named() -> None:
    text = " ".join(shown("simulate", SCENARIOS / "on-off.yaml", "--equalise", "peak").split())
    assert "token-bucket 10 -> 10 " in text
    assert "leaky-bucket 10 -> 10 " in text
    waits = " ".join(shown("simulate", BURST, "--equalise", "peak").split())
    assert "leaky-bucket denies fewer with a burst of 21 only as it makes requests wait: up to" in waits


def test_why_the_comparisons_differ_is_told_only_where_they_do() -> None:
    same = shown("simulate", BURST, "--algo", "sliding-log", "--equalise", "peak")
    assert "Equal protection: " in same
    assert "Why the two comparisons differ" not in same


def test_where_nothing_is_denied_there_is_nothing_to_compare() -> None:
    text = shown("simulate", SCENARIOS / "steady.yaml", "--equalise", "peak")
    assert "nothing to compare at equal protection" in " ".join(text.split())


def test_where_no_request_is_good_none_is_spoken_of(tmp_path: Path) -> None:
    path = tmp_path / "dear.yaml"
    path.write_text(Path(BURST).read_text(encoding="utf-8") + "    cost: 9\n")
    text = " ".join(shown("simulate", path, "--equalise", "peak").split())
    assert "no more than 5 within 2.5s: here none of 30 requests. So held, of 30 requests denied: 30 by each." in text
    assert "Every algorithm denied all 30 requests. 30 requests cost more than the burst of 5" in text


def test_a_burst_below_what_the_quota_could_serve_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dear.yaml"
    path.write_text(Path(BURST).read_text(encoding="utf-8") + "    cost: {1: 0.8, 4: 0.1, 9: 0.1}\n")
    text = " ".join(shown("simulate", path, "--equalise", "peak").split())
    assert "5 requests cost more than the burst of 5 and can never be admitted." in text
    assert (
        "The bursts found are below the cost of requests that the quota could serve, which token-bucket, fixed-window "
        "and sliding-counter can then never admit."
    ) in text


def test_equal_protection_needs_a_log_to_be_equal_to() -> None:
    message = refused(
        "simulate", BURST, "--rate", "1000/s", "--burst", "2000000", "--algo", "gcra", "--equalise", "peak"
    )
    assert "cannot be kept for a burst of 2000000: lower the burst" in message
