"""Figures that the manual page "published" compares with their sources, measured again from the shipped scenarios.

Run as `python published_figures.py` to write what ratelab finds into the page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loop_scenarios import PUBLISHED_SCENARIOS, count_successes, load_by_variant, run_population, run_variant

import ratelab
from ratelab.lab.closed_loop.outcome import SUCCESS, LoopOutcome
from ratelab.lab.policies.figures import compare_semantics
from ratelab.lab.scenarios import load_variants
from ratelab.quota import NS_PER_S

PAGE = Path(ratelab.__file__).parent / "docs" / "published.md"

BACKOFF_RUNS = {10: 60, 50: 20, 100: 50, 190: 8}
"""Runs by the number of clients; the published means are of 100."""


class Measurement(NamedTuple):
    """A figure that ratelab finds, and by how much it may differ from the published one."""

    value: float
    tolerance: float


class Row(NamedTuple):
    """A row of the page."""

    scenario: str
    run: str
    figure: str
    published: str
    found: str
    tolerance: str


def read_rows(text: str) -> Iterator[Row]:
    """Yield the rows of all tables; the heading before each names its scenario."""
    for section in text.split("\n## ")[1:]:
        scenario = re.search(r"`([\w-]+)\.yaml`", section)
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if scenario and line.startswith("| ") and len(cells) == 5 and cells[0] != "run":
                yield Row(scenario[1], *cells)


def format_number(value: float) -> str:
    """Format a figure with at least three digits; a whole number as it is."""
    if abs(value) >= 1000 or value.is_integer():
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"


def format_found(row: Row) -> tuple[str, str]:
    """Return what ratelab finds, and the tolerance, as the page has them."""
    if row.scenario == "metastable-database":
        return recovers(row.run, row.figure), "exact"
    value, tolerance = MEASURES[row.scenario](row.run, row.figure)
    return format_number(value), f"{float(f'{tolerance:.2g}'):,g}" if tolerance else "exact"


def is_within(row: Row) -> bool:
    """Return whether a row's figure is the published one, or in the published range, within the tolerance."""
    if row.published in ("yes", "no"):
        return row.found == row.published
    low, _, high = row.published.replace(",", "").partition(" to ")
    tolerance = 0.0 if row.tolerance == "exact" else float(row.tolerance.replace(",", ""))
    return float(low) - tolerance <= float(row.found.replace(",", "")) <= float(high or low) + tolerance


# --- errors


def find_error(parts: np.ndarray, wholes: np.ndarray) -> float:
    """Return the standard error of the ratio of two sums over independent clients."""
    ratio = parts.sum() / wholes.sum()
    return float(np.sqrt(((parts - ratio * wholes) ** 2).sum()) / wholes.sum())


def compare_means(values: np.ndarray, published_runs: int) -> Measurement:
    """Return a mean, and three standard errors of its difference from that of other runs that vary as much."""
    error = values.std(ddof=1) * math.sqrt(1 / len(values) + 1 / published_runs)
    return Measurement(float(values.mean()), 3 * float(error))


# --- measurements, by scenario


@cache
def repeat_backoff(variant: str, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the calls and the time of the last success in milliseconds, of runs with as many seeds."""
    population = load_by_variant("backoff-and-jitter")[variant].population
    assert population is not None
    is_long = len(population.behavior_of) > 10
    outcomes = [run_population(None, replace(population, seed=seed), is_long) for seed in range(100, 100 + runs)]
    assert all((outcome.requests.results == SUCCESS).all() for outcome in outcomes)
    calls = np.array([len(outcome.tries) for outcome in outcomes])
    return calls, np.array([outcome.requests.ended.max() / 1e6 for outcome in outcomes])


def measure_backoff(run: str, figure: str) -> Measurement:
    """Return the mean calls, or the mean time until all have written."""
    calls, last = repeat_backoff(run, BACKOFF_RUNS[int(run.split()[-1])])
    return compare_means(calls if figure == "calls" else last, 100)


def measure_ratio(scenario: str, run: str, figure: str) -> Measurement:
    """Return successes or tries per request; the published run has as many clients, which are independent."""
    counts = run_variant(scenario, run)[1].client_counts
    parts, firsts = counts["successes" if figure == "success" else "attempts"], counts["first_tries"]
    if figure == "retries, full buckets aside":
        return Measurement(float(parts.sum() - 4.9 * 100) / float(firsts.sum()) - 1, 0.003)
    error = math.sqrt(2) * find_error(parts, firsts) + 0.0005  # the last digit
    return Measurement(float(parts.sum() / firsts.sum()), 3 * error)


def measure_backoff_use(run: str, figure: str) -> Measurement:
    """Return the requests or the tries a second."""
    counts = run_variant("what-backoff-is-for", run)[1].client_counts
    a_second = counts["first_tries" if figure == "requests a second" else "attempts"] / 100
    return Measurement(float(a_second.sum()), 3 * math.sqrt(2 * len(a_second)) * float(a_second.std(ddof=1)))


@cache
def repeat_collapse() -> dict[str, list[LoopOutcome]]:
    """Return ten outcomes of each variant."""
    (path,) = (str(path) for path in PUBLISHED_SCENARIOS if path.stem == "collapse-by-timeouts")
    outcomes: dict[str, list[LoopOutcome]] = {}
    for seed in range(10):
        for scenario in load_variants(path, seed=seed):
            assert scenario.population is not None
            outcomes.setdefault(str(scenario.variant), []).append(
                run_population(None, scenario.population, is_long=True)
            )
    return outcomes


def measure_collapse(run: str, figure: str) -> Measurement:
    """Return the mean successes a second in a span, which the figure names: `successes a second, 70 s to 80 s`."""
    begin, end = (int(second) for second in re.findall(r"\d+", figure))
    rates = np.array([count_successes(outcome, begin, end) for outcome in repeat_collapse()[run]])
    return Measurement(float(rates.mean()), 0.0 if end == 40 else compare_means(rates, 10).tolerance)


def measure_throttling(run: str, figure: str) -> Measurement:
    """Return a figure of the time after the first window is full."""
    outcome, _ = run_variant("client-side-throttling", run)
    begin, span = 150 * NS_PER_S, 150
    is_late = outcome.traffic.times >= begin
    sent, firsts = int(is_late.sum()), int(np.count_nonzero(outcome.requests.started >= begin))
    if figure == "sent a second":
        return Measurement(sent / span, 0.02 * sent / span)
    if figure == "rejected by clients":
        return Measurement(1 - sent / firsts, 0.01)
    return Measurement(float((~outcome.decisions["allowed"][is_late]).mean()), 0.01)


def measure_outage(run: str, _: str) -> Measurement:
    """Return the tries per request."""
    return Measurement(run_variant("retries-of-an-outage", run)[1].amplification, 0.01)


def recovers(run: str, _: str) -> str:
    """Return whether the database recovers."""
    return "no" if run_variant("metastable-database", run)[1].recovery_time is None else "yes"


def measure_tokens(run: str, figure: str) -> Measurement:
    """Return the requests that are admitted, or the tokens that they use."""
    scenario = load_by_variant("tokens-charged-afterwards")[run]
    assert scenario.limits is not None
    (result,) = compare_semantics(scenario.limits.parts, scenario.traffic, scenario.limits.semantics).results
    policy = result.policies[0].policy
    assert policy is not None
    assert policy.asked.settlement is not None
    allowed = policy.let_through["allowed"]
    used = policy.asked.settlement.actual[allowed]
    return Measurement(float(len(used) if figure == "admitted" else used.sum()), 0.0)


def measure_shared_limit(run: str, figure: str) -> Measurement:
    """Return the denials for each success within 5 %, or the share of requests that were given up."""
    result = run_variant("retries-at-a-shared-limit", run)[1]
    if figure == "gave up":
        return Measurement(result.gave_up / result.first_tries, 0.005)
    denials = result.denied / result.successes
    return Measurement(denials, 0.05 * denials)


MEASURES: dict[str, Callable[[str, str], Measurement]] = {
    "backoff-and-jitter": measure_backoff,
    "retry-budgets": lambda run, figure: measure_ratio("retry-budgets", run, figure),
    "budgets-by-client-count": lambda run, figure: measure_ratio("budgets-by-client-count", run, figure),
    "what-backoff-is-for": measure_backoff_use,
    "collapse-by-timeouts": measure_collapse,
    "client-side-throttling": measure_throttling,
    "retries-of-an-outage": measure_outage,
    "tokens-charged-afterwards": measure_tokens,
    "retries-at-a-shared-limit": measure_shared_limit,
}


def main() -> None:
    """Write what ratelab finds into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for row in read_rows(text):
        line = f"| {' | '.join(row[1:])} |"
        found, tolerance = format_found(row)
        section = text.index(f"`{row.scenario}.yaml`")
        text = text[:section] + text[section:].replace(line, f"| {' | '.join([*row[1:4], found, tolerance])} |", 1)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
