"""The accuracy card: how far each algorithm is from the exact log, side by side and by its own past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, shown, told
from figure_types import FIGURES
from hypothesis import given
from hypothesis import strategies as st
from random_runs import Request, exact_in, integers, made_in, runs, traffic_of

from ratelab import Quota, create
from ratelab.algorithms import find
from ratelab.lab.accuracy import accuracy
from ratelab.lab.comparison import compare
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.windows import Trailing
from ratelab.limiter import Algorithm
from ratelab.report.serialize import result_rows

CARD = ["at_most", "peak_at", "peak_key", "unearned", "withheld"]
NOISY, SHARED = (str(SCENARIOS / f"{stem}.yaml") for stem in ("noisy-neighbour", "global-counter"))
quotas = st.sampled_from([Quota(1, 1, 1), Quota(1, 3, 4), Quota(2, 10**9, 5)])


@given(runs, quotas)
def test_a_card_is_what_counting_one_by_one_gives(run: list[Request], quota: Quota) -> None:
    traffic, window = traffic_of(run), quota.window
    trailing = Trailing(traffic, window)
    card = accuracy(create("token-bucket", quota), quota, traffic, made_in(run), exact_in(run), trailing)
    keys, times = traffic.request_keys.tolist(), traffic.times.tolist()
    unearned = withheld = 0
    for number, one in enumerate(run):
        past = sum(
            earlier.cost
            for key, at, earlier in zip(keys, times, run[:number], strict=False)
            if earlier.allowed and key == keys[number] and at > times[number] - window
        )
        unearned += one.allowed and past + one.cost > quota.burst
        withheld += not one.allowed and past + one.cost <= quota.burst
    assert (card.unearned, card.withheld) == (unearned, withheld)
    assert card.client_over_admitted is not None
    assert card.client_over_denied is not None
    for client in range(4):
        own = [one for one in run if one.client == client]
        assert card.client_over_admitted[client] == sum(one.allowed and not one.exact for one in own)
        assert card.client_over_denied[client] == sum(one.exact and not one.allowed for one in own)


@pytest.mark.parametrize("stem", ["costly-requests", "global-counter", "overload"])
def test_the_exact_log_keeps_to_its_past_and_nobody_breaks_a_promise(stem: str, kind: type[Algorithm]) -> None:
    scenario = load_scenario(str(SCENARIOS / f"{stem}.yaml"))
    (card,) = compare(scenario.quota, scenario.traffic, [kind], with_cards=True).cards
    assert card.worst is not None
    assert card.at_most is None or card.worst.cost <= card.at_most
    if kind.name == "sliding-log":
        assert (card.unearned, card.withheld, card.worst.cost) == (0, 0, scenario.quota.burst)
    if kind.name in ("token-bucket", "gcra", "leaky-bucket"):
        assert card.withheld == 0  # what a window has earned, a bucket has too


def test_two_who_share_a_quota_are_judged_together_by_hand() -> None:
    """Five at the end of a window by one, five at the start of the next by the other, and one more."""
    quota = Quota.parse("2/s", 5)
    arrivals = [(2_400_000_000, 0), *[(0, 0)] * 4, (100_000_000, 1), *[(0, 1)] * 4, (10**9, 1)]
    drawn = traffic_of([Request(gap, client, 1, True, 0, True) for gap, client in arrivals])
    shared = replace(drawn, names=("alice", "bob"), keys=integers([0, 0]))
    comparison = compare(quota, shared, [find("fixed-window")], with_cards=True)
    (card,), (row,) = comparison.cards, result_rows(comparison)
    assert (card.at_most, card.worst, card.unearned, card.withheld) == (10, (10, 2_400_000_000, 0), 5, 0)
    assert (row["peak_at"], row["peak_key"]) == (2.4, "alice and 1 other")


def test_json_and_csv_tell_the_card_when_asked(tmp_path: Path) -> None:
    plain, card = told("simulate", NOISY), told("simulate", NOISY, "--accuracy", "--csv", tmp_path / "table.csv")
    assert list(card["results"][0]) == [*FIGURES, *CARD, "per_client"]
    assert (tmp_path / "table.csv").read_text().splitlines()[0].split(",") == ["scenario", *FIGURES, *CARD]
    for before, after in zip(plain["results"], card["results"], strict=True):
        for name in ("over_admitted", "over_denied"):
            assert sum(row.pop(name) for row in after["per_client"]) == after[name]
        assert {name: after[name] for name in before} == before
        assert (after["peak_at"], after["peak_key"]) == (0, "noisy")


def test_the_table_tells_what_each_promises_and_where_it_was_worst() -> None:
    text = shown("simulate", BURST, "--accuracy")
    assert [line for line in text.splitlines() if len(line.rstrip()) > 80] == []
    card = text.partition("held against")[2].splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in card if line.strip()}
    assert rows["fixed-window"] == ["7", "10", "1s", "2", "1", "3", "0"]
    assert rows["sliding-log"] == ["5", "5", "1s", "0", "0", "0", "0"]
    assert (
        "Decisions that differ from the exact log's: token-bucket 2 (6.7 %), leaky-bucket 2 (6.7 %), "
        "fixed-window 3 (10 %), sliding-counter 1 (3.3 %); sliding-log none." in " ".join(text.split())
    )


def test_clients_are_ranked_by_how_many_of_their_requests_are_decided_otherwise() -> None:
    rows = told("simulate", SHARED, "--accuracy")["results"][0]["per_client"]
    differing = {row["client"]: f"+{row['over_admitted']} -{row['over_denied']}" for row in rows}
    text = shown("simulate", SHARED, "--accuracy").partition("most differing")[2]
    table = [line.split() for line in text.splitlines()[1:] if "-flood" in line or "-quiet" in line]
    assert table[0][0].endswith("-flood")
    assert [(cells[0], " ".join(cells[1:3])) for cells in table] == [(cells[0], differing[cells[0]]) for cells in table]
    assert "own-quiet-1" not in text
    assert "most differing" not in shown("simulate", BURST, "--accuracy")


def test_a_log_that_could_not_be_held_leaves_only_the_past_to_judge_by() -> None:
    rows = told("simulate", BURST, "--rate", "1000/s", "--burst", "2000000", "--accuracy", "--algo", "gcra")["results"]
    assert (rows[0]["withheld"], rows[0]["at_most"], rows[0]["per_client"][0]["over_denied"]) == (0, 3_999_999, None)
    text = shown("simulate", BURST, "--rate", "1000/s", "--burst", "2000000", "--accuracy", "--algo", "gcra")
    assert "Decisions that differ" not in text
