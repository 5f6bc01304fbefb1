"""Closed loops in words and tables: findings, columns and descriptions that agree with the figures."""

from __future__ import annotations

import numpy as np
from loop_outcomes import MS, Request, Try, make_outcome, make_policy

from ratelab.lab.closed_loop.behavior import Behavior, Population, Retry, Server
from ratelab.lab.closed_loop.diagnoses import has_herd
from ratelab.lab.closed_loop.figures import LoopCase, LoopComparison, LoopResult, measure_loop
from ratelab.lab.closed_loop.outcome import DENIED, GAVE_UP, SUCCESS, TIMEOUT
from ratelab.lab.traffic import Traffic
from ratelab.report.loop_findings import describe_case, describe_cases, summarize_loops
from ratelab.report.loop_tables import build_loop_clients_table, build_loop_figures_table, build_loops_table
from ratelab.report.loops import LOOP_FIGURES, serialize_series

S = 1000
"""A second in milliseconds."""


def compare(*results: LoopResult) -> LoopComparison:
    case = LoopCase(results[0].population, () if results[0].policy is None else (results[0].policy,))
    return LoopComparison((case,), results)


def make_result(label: str, served: int, tries: int = 1, wait: int = 0, wasted: int = 0) -> LoopResult:
    """Return the result of ten requests, of which the first `served` succeed after `tries` tries and `wait` ms."""
    requests = [
        Request(number % 2, 100 * number, 100 * number + wait, tries, SUCCESS if number < served else GAVE_UP)
        for number in range(10)
    ]
    sent = [
        Try(100 * number + place, number, 1 + place, DENIED if number >= served else SUCCESS, number < served)
        for number in range(10)
        for place in range(tries)
    ]
    sent[:wasted] = [each._replace(wasted=True, result=TIMEOUT) for each in sent[:wasted]]
    return measure_loop(make_outcome(requests, sent, 10 * S, policy=make_policy(), clients=2), label)


def test_findings_name_the_best_and_the_worst_of_several() -> None:
    results = make_result("a", 10, 1), make_result("b", 5, 3, 2 * S), make_result("c", 7, 2, S, wasted=2)
    served, tries, times, wasted, quota = summarize_loops(compare(*results))
    assert served == "Of 10 requests, a served 10 (100 %), b the fewest, 5 (50 %)."
    assert tries == (
        "On average, a request took 1 try under a, and up to 3 tries under b; "
        "clients gave up none of the requests under a, and up to 50 % under b."
    )
    assert times == "99 % of the successes came at once under a, and within 2 s under b."
    assert wasted == "10 % of the tries under c were served after the caller had left."
    assert quota.startswith("b let ")


def test_findings_of_one_run_name_no_algorithm() -> None:
    served, tries, times, quota = summarize_loops(compare(make_result("a", 7, 2, S)))
    assert served == "7 of 10 requests (70 %) were served, 0.7/s on average."
    assert tries == "On average, a request took 2 tries; clients gave up 30 % of the requests."
    assert times == "99 % of the successes came within 1 s."
    assert quota == "a let 8 through in a window of 1 s, above the quota of 2."


def test_equal_results_are_those_of_every_algorithm() -> None:
    served = summarize_loops(compare(make_result("a", 10), make_result("b", 10)))[0]
    assert served == "Every algorithm served all 10 requests."


def test_runs_that_serve_all_of_their_requests_are_equal() -> None:
    one = measure_loop(make_outcome([Request(0, 0, 0, 1, SUCCESS)], [Try(0, 0, 1, SUCCESS)], 10 * S), "one")
    assert summarize_loops(compare(make_result("many", 10), one))[0] == "Every algorithm served all of its requests."


def test_requests_that_depend_on_answers_are_compared_by_goodput() -> None:
    requests = [Request(0, 0, 0, 1, SUCCESS), Request(0, 0, 0, 1, GAVE_UP)]
    few = measure_loop(make_outcome(requests, [Try(0, 0, 1, SUCCESS)], 10 * S), "few")
    served = summarize_loops(compare(make_result("many", 10), few))[0]
    assert served == "many served 1/s, few 0.1/s."


def make_faulty(label: str, *rates: tuple[int, int], outage: bool = True) -> LoopResult:
    """Return the result of requests that succeed at once, at these rates for as many seconds each."""
    starts, begin = [], 0
    for seconds, rate in rates:
        starts += [begin + number * S // rate for number in range(seconds * rate)]
        begin += seconds * S
    requests = [Request(0, at, at, 1, SUCCESS) for at in starts]
    tries = [Try(at, number, 1, SUCCESS) for number, at in enumerate(starts)]
    return measure_loop(make_outcome(requests, tries, begin, [(20 * S, 30 * S)] if outage else []), label)


def test_recovery_comes_first() -> None:
    back = make_faulty("a", (20, 10), (10, 0), (5, 1), (25, 10))
    lost = make_faulty("b", (20, 10), (10, 0), (30, 2))
    sentences = summarize_loops(compare(back, lost))
    assert sentences[0] == (
        "After the outage, goodput was back after 5 s under a, and never under b: a metastable failure."
    )
    assert summarize_loops(compare(lost))[0] == "After the outage, goodput was never back: a metastable failure."
    assert summarize_loops(compare(back))[0] == "After the outage, goodput was back after 5 s."


def test_recovery_is_a_column_of_runs_with_faults() -> None:
    runs = compare(make_faulty("a", (20, 10), (10, 0), (30, 10)), make_faulty("b", (20, 10), (10, 0), (30, 2)))
    table = build_loops_table(runs)
    column = table.headers.index("recovery") - 1
    assert [cells[column].text for _, cells in table.rows] == ["0", "never"]
    assert "recovery" not in build_loops_table(compare(make_faulty("a", (60, 1), outage=False))).headers


def test_a_herd_is_reported_if_first_tries_form_none() -> None:
    requests = [Request(0, 100 * number, 5 * S, 2, SUCCESS) for number in range(50)]
    first = [Try(100 * number, number, 1, DENIED, allowed=False) for number in range(50)]
    again = [Try(5 * S, number, 2, SUCCESS) for number in range(50)]
    result = measure_loop(make_outcome(requests, [*first, *again], 10 * S))
    assert has_herd(result)
    assert f"Retries came in herds: within 100 ms, tries rose to {result.herd_peak:g} times their mean." in (
        summarize_loops(compare(result))
    )
    calm = measure_loop(make_outcome(requests, first, 10 * S))
    assert not has_herd(calm)
    assert "herd peak" not in build_loops_table(compare(calm)).headers


def test_a_table_marks_windows_above_the_quota() -> None:
    table = build_loops_table(compare(make_result("a", 10, 3), make_result("b", 1)))
    assert table.headers[-1] == "most in 1 s"
    assert [cells[-1].mark for _, cells in table.rows] == ["above", ""]
    assert table.note == "! above the quota of 2 in any 1 s"


def test_all_figures_are_in_a_table_with_their_names() -> None:
    table = build_loop_figures_table(compare(make_result("a", 7)))
    assert [name for name, _ in table.rows] == list(LOOP_FIGURES)


def test_clients_are_listed_by_the_part_that_was_served() -> None:
    table = build_loop_clients_table(compare(make_result("a", 10), make_result("b", 5)), 10)
    assert table is not None
    assert [(name, [cell.text for cell in cells]) for name, cells in table.rows] == [
        ("client-1", ["5", "5 (100 %)", "2 (40 %)"]),
        ("client-0", ["5", "5 (100 %)", "3 (60 %)"]),
    ]
    assert build_loop_clients_table(compare(make_result("a", 10)), 10) is None


def test_the_series_add_up_to_the_figures() -> None:
    result = make_result("a", 7, 2)
    series = serialize_series(result)
    assert [sum(series[name]) for name in ("first_tries", "arrivals", "denied")] == [10, 20, result.denied]
    assert sum(series["goodput"]) * 0.1 == result.successes
    assert (series["begins"][0], len(series["begins"])) == (0, 100)


def make_case(variant: str, retry: Retry, loop: str = "open") -> LoopCase:
    traffic = Traffic(np.array([0, 5 * MS]), np.array([0, 1]), np.array([1, 1]), ("x", "y"), np.arange(2), 10 * S * MS)
    behavior = Behavior(retry=retry) if loop == "open" else Behavior("serial", retry=retry)
    population = Population(traffic, (behavior,), np.zeros(2, np.int64), 0, Server(workers=2))
    return LoopCase(population, (), variant)


def test_a_case_is_described_by_its_clients_and_what_they_meet() -> None:
    lines = describe_case(make_case("a", Retry("fixed")))
    assert lines[:2] == ["2 requests from 2 clients in 10 s", "no limiter"]
    assert lines[2].startswith("server: 2 workers")
    assert lines[3] == "each client: retries after 100 ms, 3 tries at most"
    assert describe_case(make_case("a", Retry("fixed"), "serial"))[0] == "2 clients in 10 s"


def test_variants_are_described_by_their_differences() -> None:
    cases = [make_case("a", Retry("fixed"), "serial"), make_case("b", Retry("fixed", attempts=5), "serial")]
    result = make_result("a", 10)
    described = describe_cases(LoopComparison(tuple(cases), (result, result)), [describe_case(case) for case in cases])
    assert described[-3:] == [
        "each client: one request at a time, without a pause",
        "a: retries after 100 ms, 3 tries at most",
        "b: retries after 100 ms, 5 tries at most",
    ]
