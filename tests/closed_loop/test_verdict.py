"""Verdicts: each fault is found in a small population that has it, no fault in healthy ones, and changes are tried."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cli_runner import get_json, get_output
from mutate import mutate
from slow_parameters import mark_slow

from ratelab.algorithms import build_policy, select
from ratelab.lab.closed_loop import diagnoses, verdict
from ratelab.lab.closed_loop.changes import REMEDIES, list_changes
from ratelab.lab.closed_loop.diagnoses import diagnose
from ratelab.lab.closed_loop.figures import LoopCase, LoopResult, compare_loops
from ratelab.lab.closed_loop.verdict import LoopVerdict, judge
from ratelab.lab.scenarios import load_scenario
from ratelab.report.verdicts import FAULTS, describe_trial, describe_verdicts

OPEN = "traffic: [{pattern: poisson, rate: RATE}]"

OUTAGE = "faults: [{fault: outage, at: 10s, for: 5s}]"

SLOW = "faults: [{fault: slow, at: 10s, for: 5s, by: 10}]"

SERVER = "server: {workers: 1, service: 20ms}"

FAULTY = {
    "overload-without-shedding": ([SERVER], ["traffic: [{pattern: poisson, rate: 70/s}], timeout: 2s"]),
    "metastable-failure": (
        [SERVER, SLOW],
        ["traffic: [{pattern: poisson, rate: 35/s}], timeout: 1s, retry: {policy: immediate, attempts: 3}"],
    ),
    "retry-storm": (
        [SERVER, OUTAGE],
        ["traffic: [{pattern: poisson, rate: 20/s}], retry: {policy: fixed, base: 500ms, attempts: 4}"],
    ),
    "dead-requests": ([SERVER, SLOW], ["traffic: [{pattern: poisson, rate: 30/s}], timeout: 1s"]),
    "herd": (
        ["quota: {rate: 200/10s}", "algorithms: [fixed-window]"],
        ["count: 60, key: all, traffic: [{pattern: poisson, rate: 24/min}], retry: {policy: retry-after, attempts: 5}"],
    ),
    "starvation": (
        ["quota: {rate: 20/s, burst: 20}", "algorithms: [fixed-window]"],
        [
            "key: all, traffic: [{pattern: poisson, rate: 40/s}], retry: {policy: fixed, base: 50ms, attempts: 20}",
            "count: 5, key: all, traffic: [{pattern: poisson, rate: 1/s}]",
        ],
    ),
    "tight-limit": (
        ["quota: {rate: 5/s, burst: 2}", "algorithms: [token-bucket]"],
        [
            "count: 5, traffic: [{pattern: on-off, rate: 10/s, on: 1s, off: 2s}], "
            "retry: {policy: exponential, base: 1s, attempts: 6}"
        ],
    ),
}
"""Keys of a scenario and of its clients, for each fault."""

HEALTHY = {
    "an idle server": ([SERVER], ["traffic: [{pattern: poisson, rate: 25/s}], timeout: 2s"]),
    "serial clients of a busy server": ([SERVER], ["count: 60, loop: serial, think: {exponential: 1s}, timeout: 10s"]),
    "a server that sheds": (
        ["server: {workers: 1, service: 20ms, queue: 20}"],
        ["traffic: [{pattern: poisson, rate: 60/s}], timeout: 2s"],
    ),
    "an outage without retries": ([SERVER, OUTAGE], ["traffic: [{pattern: poisson, rate: 20/s}]"]),
    "an outage with a budget": (
        [SERVER, OUTAGE],
        ["traffic: [{pattern: poisson, rate: 20/s}], retry: {policy: full-jitter, budget: 10%}"],
    ),
    "a limit that is wide enough": (
        ["quota: {rate: 5/s, burst: 20}"],
        ["count: 5, traffic: [{pattern: poisson, rate: 3/s}], retry: {policy: full-jitter}"],
    ),
    "a greedy client with a quota of its own": (
        ["quota: {rate: 5/s, burst: 10}", "algorithms: [token-bucket]"],
        [
            "traffic: [{pattern: steady, rate: 50/s}], retry: {policy: full-jitter, budget: 10%}",
            "count: 5, traffic: [{pattern: steady, rate: 1/s}]",
        ],
    ),
    "few clients that come together": (
        ["quota: {rate: 2/20s}", "algorithms: [fixed-window]"],
        ["traffic: [{pattern: steady, rate: 1/s, from: 1s, to: 9s}], retry: {policy: retry-after, attempts: 2}"],
    ),
    "serial clients that have done their work": (
        [SERVER, OUTAGE],
        ["count: 4, loop: serial, think: 100ms, requests: 120, retry: {policy: fixed, base: 1s, attempts: 8}"],
    ),
    "no requests": ([SERVER], ["traffic: [{pattern: burst, at: 59s, size: 1}]"]),
}
"""Scenarios in which nothing needs to be changed."""


@cache
def run(name: str) -> tuple[LoopResult, ...]:
    """Return the results of a faulty or healthy scenario."""
    with TemporaryDirectory() as folder:
        return compare_loops([make_case(Path(folder), *(FAULTY | HEALTHY)[name])]).results


@cache
def judge_fault(name: str) -> LoopVerdict:
    """Return the verdict on a faulty scenario."""
    (judged,) = judge(run(name))
    return judged


def make_case(tmp_path: Path, keys: list[str], clients: list[str]) -> LoopCase:
    scenario = load_scenario(str(write(tmp_path, keys, clients)))
    assert scenario.population is not None
    kinds = () if scenario.quota is None else select((), scenario.algorithms)
    return LoopCase(scenario.population, tuple(build_policy(kind, scenario.quota) for kind in kinds if scenario.quota))


def write(tmp_path: Path, keys: list[str], clients: list[str]) -> Path:
    path = tmp_path / "case.yaml"
    lines = [f"  - {{name: client{number}, {client}}}" for number, client in enumerate(clients)]
    path.write_text("\n".join(["name: case", "duration: 1min", "seed: 1", *keys, "clients:", *lines]) + "\n")
    return path


@pytest.mark.parametrize("name", mark_slow(FAULTY, {*FAULTY} - {"starvation", "metastable-failure"}))
def test_a_fault_is_found_with_evidence_and_a_change_that_helps(name: str) -> None:
    judged = judge_fault(name)
    found = {diagnosis.name: diagnosis.evidence for diagnosis in judged.diagnoses}
    assert name in found
    assert found[name]
    assert judged.trials
    assert any(name in trial.cured + trial.eased for trial in judged.trials)
    (text,) = describe_verdicts([judged])
    assert len(text.faults) == len(found)
    assert all(change.startswith("with ") and "goodput" in change for change in text.changes)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_fault(name: str) -> None:
    results = run(name)
    judged = judge(results)
    assert [verdict.diagnoses for verdict in judged] == [()] * len(results)
    assert describe_verdicts(judged)[0].faults == ["No fault was found."]


def test_every_diagnosis_has_a_case_words_and_remedies() -> None:
    assert set(FAULTY) == set(FAULTS) == set(REMEDIES)


def test_changes_that_help_raise_goodput_or_remove_a_fault_and_the_best_is_first() -> None:
    judged = judge_fault("metastable-failure")
    before = judged.result
    assert judged.trials[0].result.goodput >= 0.97 * max(trial.result.goodput for trial in judged.trials)
    for trial in judged.trials:
        after = trial.result
        assert after.goodput > before.goodput or (trial.cured and after.goodput >= 0.98 * before.goodput)


def test_a_trial_is_what_the_changed_population_gives() -> None:
    judged = judge_fault("dead-requests")
    population = judged.result.population
    changes = {change.name: change for change in list_changes(population, None, ["dead-requests"])}
    for trial in judged.trials:
        change = changes[trial.change]
        policies = () if change.policy is None else (change.policy,)
        (again,) = compare_loops([LoopCase(change.population, policies)]).results
        assert (again.goodput, again.attempts) == (trial.result.goodput, trial.result.attempts)


def test_a_change_alters_one_thing_and_no_client_that_does_not_retry(tmp_path: Path) -> None:
    case = make_case(tmp_path, *FAULTY["starvation"])
    for change in list_changes(case.population, case.policies[0], [*REMEDIES]):
        same_clients = change.population.behaviors == case.population.behaviors
        same_server = change.population.server == case.population.server
        assert not (same_clients and same_server and change.policy is case.policies[0]), change.name
        assert change.population.behaviors[1] == case.population.behaviors[1]


def test_trials_are_bounded_and_those_left_out_are_counted() -> None:
    results = run("metastable-failure")
    (none,) = judge(results, limit=1)
    (one,) = judge(results, limit=results[0].attempts)
    (every,) = judge(results, limit=10**9)
    assert (none.tried, every.left_out) == (0, 0)
    assert none.left_out == one.tried + one.left_out == every.tried
    assert 0 < one.tried < every.tried
    note = f"{every.tried} changes that may help were not tried, to bound the work: shorten the duration, or have fewer"
    assert describe_verdicts([none])[0].note == f"{note} clients or variants."


def test_changes_are_tried_first_for_the_rows_that_serve_least() -> None:
    (worst,) = run("metastable-failure")
    better = replace(worst, goodput_ratio=worst.goodput_ratio + 0.1)
    for rows in ([better, worst], [worst, better]):
        verdicts = judge(rows, limit=worst.attempts)
        assert [bool(verdict.trials) for verdict in verdicts] == [row is worst for row in rows]


def test_if_no_change_helps_the_verdict_reports_it() -> None:
    judged = replace(judge_fault("dead-requests"), trials=(), tried=4, left_out=0)
    assert describe_verdicts([judged])[0].note == "None of 4 changes that were tried helps."


@pytest.mark.slow
def test_text_json_and_page_have_the_verdict(tmp_path: Path) -> None:
    path, page = write(tmp_path, *FAULTY["dead-requests"]), tmp_path / "page.html"
    text = get_output("simulate", path, "--html", page)
    assert "\nVerdict\nQueue of dead requests: " in text
    assert "\n- with " in text
    (row,) = get_json("simulate", path)["results"]
    assert [each["name"] for each in row["verdict"]["diagnoses"]] == ["dead-requests"]
    best = row["verdict"]["changes"][0]
    assert best["after"]["goodput"] > best["before"]["goodput"]
    assert f"<li>with {best['change']}" in page.read_text().replace("\N{NO-BREAK SPACE}", " ")


def test_rows_without_a_fault_are_named_after_the_others() -> None:
    sick, healthy = run("dead-requests")[0], run("an idle server")[0]
    texts = describe_verdicts(judge([replace(sick, label="a"), replace(healthy, label="b")]))
    assert [(text.label, text.faults[0][:18]) for text in texts] == [
        ("a", "Queue of dead requ"),
        ("", "No fault was found"),
    ]
    assert texts[1].faults == ["No fault was found (b)."]


MUTANTS = {
    "overload-without-shedding": mutate(diagnoses, "_find_overload", "demand <= capacity", "demand >= capacity"),
    "metastable-failure": mutate(diagnoses, "_find_metastable_failure", "not result.metastable", "True"),
    "retry-storm": mutate(diagnoses, "_find_storm", "served < STORM", "served > STORM"),
    "dead-requests": mutate(diagnoses, "_find_dead_requests", "ratio < MIN_W", "ratio > MIN_W"),
    "starvation": mutate(diagnoses, "_find_starving", "members) <= all", "members) > all"),
    "tight-limit": mutate(diagnoses, "_find_tight_limit", "denied < MIN_DENIED_RATIO", "denied > MIN_DENIED_RATIO"),
    "herd": mutate(diagnoses, "has_herd", ">= MIN_HERD_TRIES", "< MIN_HERD_TRIES"),
}
"""Thresholds that are turned around."""


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_of_diagnoses_die(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = run(name)
    monkeypatch.setattr(*MUTANTS[name])
    assert name not in [diagnosis.name for diagnosis in diagnose(result)]


ALARMS = {
    "a server that sheds": mutate(diagnoses, "_find_overload", "server.queue is not None or ", ""),
    "an outage without retries": mutate(diagnoses, "_find_storm", "(tries >= STORM_FACTOR * usual) & ", ""),
    "serial clients that have done their work": mutate(
        diagnoses, "_find_metastable_failure", " or 2 * max(begun, tries) * begin < before * rest", ""
    ),
    "few clients that come together": mutate(diagnoses, "has_herd", "peak * result.attempts", "10**20 * peak"),
    "a greedy client with a quota of its own": mutate(
        diagnoses, "_find_tight_limit", "(demand * quota.period <= quota.limit * population.duration)", "True"
    ),
}
"""Conditions that are left out, each of which lets a healthy run look faulty."""


@pytest.mark.parametrize("name", ALARMS)
def test_mutants_with_false_alarms_die(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run(name)
    monkeypatch.setattr(*ALARMS[name])
    assert any(diagnose(result) for result in results)


@pytest.mark.slow
def test_a_change_that_does_not_help_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = judge_fault("starvation")
    monkeypatch.setattr(*mutate(verdict, "_helps", "bool(better)", "True"))
    (mutant,) = judge(run("starvation"))
    assert len(mutant.trials) > len(judged.trials)


def test_a_change_that_brings_a_fault_names_it() -> None:
    judged = judge_fault("dead-requests")
    trial = judged.trials[0]._replace(brought=("herd",))
    assert describe_trial(judged, trial) == f"{describe_trial(judged, judged.trials[0])}, but a herd"
