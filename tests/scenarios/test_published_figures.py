"""Published figures of clients that retry, reproduced from scenario files, as the manual page "published" has them."""

from __future__ import annotations

import re
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from loop_scenarios import PUBLISHED_SCENARIOS, count_successes, run_variant
from published_figures import PAGE, Row, find_error, format_found, is_within, read_rows, repeat_collapse

from ratelab.lab.scenarios import load_variants
from ratelab.quota import NS_PER_S

ROWS = list(read_rows(PAGE.read_text(encoding="utf-8")))
FAST = [row for row in ROWS if row.scenario == "tokens-charged-afterwards" or row.run.endswith("-jitter 10")]


def name_row(row: Row) -> str:
    return f"{row.scenario}: {row.run}, {row.figure}"


def check(row: Row) -> None:
    assert (row.found, row.tolerance) == format_found(row)
    assert is_within(row), row


@pytest.mark.parametrize("row", FAST, ids=name_row)
def test_short_runs_have_the_published_figures(row: Row) -> None:
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row not in FAST], ids=name_row)
def test_runs_have_the_published_figures(row: Row) -> None:
    check(row)


def test_the_page_has_rows_for_every_scenario() -> None:
    assert len({*ROWS}) == len(ROWS) > 90
    assert {row.scenario for row in ROWS} == {path.stem for path in PUBLISHED_SCENARIOS}


def test_a_figure_beyond_its_tolerance_is_noticed() -> None:
    row = Row("s", "run", "figure", "1,000", "1,011", "10")
    assert not is_within(row)
    assert is_within(row._replace(tolerance="11"))
    assert is_within(row._replace(published="900 to 1,011", tolerance="exact"))
    assert not is_within(row._replace(published="yes", found="no"))


# --- what the sources say besides their figures


@pytest.mark.slow
@pytest.mark.parametrize("percent", [10, 50, 75])
def test_three_retries_have_the_closed_form_of_success_and_load(percent: int) -> None:
    p, (_, result) = percent / 100, run_variant("retry-budgets", f"three {percent}%")
    counts = result.client_counts
    error = find_error(counts["attempts"], counts["first_tries"])
    assert result.amplification == pytest.approx((1 - p**4) / (1 - p), abs=3 * error)
    error = sqrt(p**4 * (1 - p**4) / (result.successes + result.gave_up))  # some requests are pending at the end
    assert result.success_ratio == pytest.approx(1 - p**4, abs=3 * error)


@pytest.mark.slow
def test_backoff_does_not_change_the_tries_of_a_request() -> None:
    for variant in ("open", "paced", "paused"):
        assert run_variant("what-backoff-is-for", variant)[1].amplification == pytest.approx(1.875, abs=0.01)


@pytest.mark.slow
def test_a_spike_ends_in_collapse_or_recovery_without_backoff_and_in_recovery_with_it() -> None:
    outcomes = repeat_collapse()
    late = {name: [count_successes(outcome, 70, 80) for outcome in each] for name, each in outcomes.items()}
    assert min(late["backoff and jitter"]) > 30
    assert sorted({round(value, -1) for value in late["no backoff"]}) == [0, 40]
    assert all(count_successes(outcome, 10, 20) == pytest.approx(40, abs=8) for outcome in outcomes["no backoff"])


@pytest.mark.slow
def test_a_database_that_does_not_recover_answers_nothing_in_time() -> None:
    for variant in ("160 queries", "280 queries", "280 queries, budget of 10%"):
        outcome, result = run_variant("metastable-database", variant)
        assert result.metastable
        assert count_successes(outcome, 100, 600) == 0
    outcome, _ = run_variant("metastable-database", "280 queries")
    assert np.count_nonzero(outcome.traffic.times >= 100 * NS_PER_S) / 500 == pytest.approx(560, rel=0.01)
    assert run_variant("metastable-database", "280 queries, last in first out")[1].recovery_time == 0


# --- all of them


@pytest.mark.parametrize("path", PUBLISHED_SCENARIOS, ids=lambda path: path.stem)
def test_each_scenario_names_its_source_and_a_lesson(path: Path) -> None:
    (first, *_) = variants = load_variants(str(path))
    assert first.name == path.stem
    assert first.description.endswith(".")
    assert re.fullmatch(r"[A-Z].{30,}\.", first.lesson or "")
    assert len({variant.variant for variant in variants}) > 1
