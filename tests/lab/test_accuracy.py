"""Accuracy of algorithms: compared with the exact log, and with their own past admissions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_json, get_output
from figure_types import FIGURES
from hypothesis import given
from hypothesis import strategies as st
from random_runs import Request, create_column, create_outcomes, create_traffic, runs

from ratelab import Quota, create
from ratelab.algorithms import build_policy
from ratelab.lab.accuracy import measure_accuracy
from ratelab.lab.comparison import compare, with_accuracy
from ratelab.lab.scenarios import load_scenario
from ratelab.limiter import Algorithm
from ratelab.report.serialize import serialize_results

ACCURACY_FIGURES = ["at_most", "peak_at", "peak_key", "unearned", "withheld"]
NOISY, SHARED = (str(SCENARIOS / f"{stem}.yaml") for stem in ("noisy-neighbour", "global-counter"))
quotas = st.sampled_from([Quota(1, 1, 1), Quota(1, 3, 4), Quota(2, 10**9, 5)])


@given(runs, quotas)
def test_accuracy_equals_a_count_one_by_one(run: list[Request], quota: Quota) -> None:
    outcome, exact = create_outcomes(run, quota)
    traffic, window = create_traffic(run), quota.window
    found = measure_accuracy(outcome, exact)
    keys, times = traffic.request_keys.tolist(), traffic.times.tolist()
    unearned = withheld = 0
    for number, request in enumerate(run):
        past = sum(
            earlier.cost
            for key, at, earlier in zip(keys, times, run[:number], strict=False)
            if earlier.allowed and key == keys[number] and at > times[number] - window
        )
        unearned += request.allowed and past + request.cost > quota.burst
        withheld += not request.allowed and past + request.cost <= quota.burst
    assert (found.unearned, found.withheld) == (unearned, withheld)
    assert found.client_over_admitted is not None
    assert found.client_over_denied is not None
    for client in range(4):
        sent = [request for request in run if request.client == client]
        assert found.client_over_admitted[client] == sum(request.allowed and not request.exact for request in sent)
        assert found.client_over_denied[client] == sum(request.exact and not request.allowed for request in sent)


@given(runs, quotas)
def test_clients_are_compared_only_with_a_reference_for_the_same_traffic(run: list[Request], quota: Quota) -> None:
    outcome, exact = create_outcomes(run, quota)
    same, other = (
        measure_accuracy(outcome, exact),
        measure_accuracy(outcome, replace(exact, traffic=create_traffic(run))),
    )
    assert (other.client_over_admitted, other.client_over_denied) == (None, None)
    assert (other.peak_at, other.peak_key, other.unearned, other.withheld) == (
        same.peak_at,
        same.peak_key,
        same.unearned,
        same.withheld,
    )


@pytest.mark.parametrize("stem", ["costly-requests", "global-counter", "overload"])
def test_the_exact_log_is_exact_and_every_declared_bound_holds(stem: str, kind: type[Algorithm]) -> None:
    scenario = load_scenario(str(SCENARIOS / f"{stem}.yaml"))
    comparison = with_accuracy(compare([build_policy(kind, scenario.open_loop_quota)], scenario.traffic))
    (result,), (found,) = comparison.results, comparison.accuracy
    assert found.at_most is None or 0 < result.peak_in_window <= found.at_most
    if kind.name == "sliding-log":
        assert (found.unearned, found.withheld, result.peak_in_window) == (0, 0, scenario.open_loop_quota.burst)
    if kind.name in ("token-bucket", "gcra", "leaky-bucket"):
        assert found.withheld == 0  # a bucket holds at least what the window has left


def test_clients_that_share_a_quota_are_judged_together() -> None:
    """Five requests of one client end a window; five of the other begin the next, and one more follows."""
    arrivals = [(2_400_000_000, 0), *[(0, 0)] * 4, (100_000_000, 1), *[(0, 1)] * 4, (10**9, 1)]
    drawn = create_traffic([Request(gap, client, 1, True, 0, True) for gap, client in arrivals])
    shared = replace(drawn, names=("alice", "bob"), keys=create_column([0, 0]))
    comparison = with_accuracy(compare([create("fixed-window", "2/s", 5)], shared))
    (found,), (row,) = comparison.accuracy, serialize_results(comparison)
    assert (found.at_most, row["peak_in_window"], found.unearned, found.withheld) == (10, 10, 5, 0)
    assert (row["peak_at"], row["peak_key"]) == (2.4, "alice and 1 other")


def test_json_and_csv_have_the_accuracy_on_request(tmp_path: Path) -> None:
    plain, extended = (
        get_json("simulate", NOISY),
        get_json("simulate", NOISY, "--accuracy", "--csv", tmp_path / "table.csv"),
    )
    assert list(extended["results"][0]) == [*FIGURES, *ACCURACY_FIGURES, "per_client"]
    assert (tmp_path / "table.csv").read_text().splitlines()[0].split(",") == ["scenario", *FIGURES, *ACCURACY_FIGURES]
    for before, after in zip(plain["results"], extended["results"], strict=True):
        for name in ("over_admitted", "over_denied"):
            assert sum(row.pop(name) for row in after["per_client"]) == after[name]
        assert {name: after[name] for name in before} == before
        assert (after["peak_at"], after["peak_key"]) == (0, "noisy")


def test_the_table_has_each_bound_and_fullest_window() -> None:
    text = get_output("simulate", BURST, "--accuracy")
    assert [line for line in text.splitlines() if len(line.rstrip()) > 80] == []
    table = text.partition("Compared with")[2].partition("\n\n")[0]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["fixed-window"] == ["2", "1", "7", "10", "1", "s", "3", "0"]
    assert rows["sliding-log"] == ["0", "0", "5", "5", "1", "s", "0", "0"]
    assert (
        "Decisions that differ from those of the exact log: token-bucket 2 (6.67 %), leaky-bucket 2 (6.67 %), "
        "fixed-window 3 (10 %), sliding-counter 1 (3.33 %); sliding-log none." in " ".join(text.split())
    )


def test_clients_are_ranked_by_how_many_of_their_decisions_differ() -> None:
    rows = get_json("simulate", SHARED, "--accuracy")["results"][0]["per_client"]
    differing = {row["client"]: f"+{row['over_admitted']} -{row['over_denied']}" for row in rows}
    text = get_output("simulate", SHARED, "--accuracy").partition("decided differently")[2]
    table = [line.split() for line in text.splitlines()[1:] if "-flood" in line or "-quiet" in line]
    assert table[0][0].endswith("-flood")
    assert [(cells[0], " ".join(cells[2:4])) for cells in table] == [(cells[0], differing[cells[0]]) for cells in table]
    assert "own-quiet-1" not in text
    assert "decided differently" not in get_output("simulate", BURST, "--accuracy")


def test_without_an_exact_log_only_the_past_is_compared() -> None:
    command = ("simulate", BURST, "--rate", "1000/s", "--burst", "2000000", "--accuracy", "--algo", "gcra")
    rows = get_json(*command)["results"]
    assert (rows[0]["withheld"], rows[0]["at_most"], rows[0]["per_client"][0]["over_denied"]) == (0, 3_999_999, None)
    text = get_output(*command)
    assert "Decisions that differ" not in text
