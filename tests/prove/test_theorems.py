"""Theorems: proved for the built-in algorithms, and refuted for each mutant by a timeline of the real step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from threading import Timer

import pytest
import z3
from contracts import decides_as_its_model, refunds_a_charge
from kernel_mutants import KERNELS, Mutant, Promise
from manual import block
from slow_parameters import mark_slow

from ratelab import ALGORITHMS, Algorithm, InputError, Quota
from ratelab.algorithms import find
from ratelab.algorithms.penalty import Penalty, penalize
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab import conformance
from ratelab.limiter import traits_of
from ratelab.prove import PROVED, REFUTED, UNDECIDED, Finding, prove
from ratelab.prove.scene import Subject, TranslatedSteps
from ratelab.prove.solver import OutOfTimeError, Prover, TimeBudget
from ratelab.prove.theorems import GENERAL

QUOTAS = ["7/3s:5", "2/s:1", "3/10ns:4", "1/day:1", "1000000/h:1000000", "5/7ns:6", "999999937/h:3"]
"""Rate and burst; the first is proved by the fast tests."""

HARD = ("sliding-log", "sliding-counter")
"""Algorithms whose proofs take seconds."""

QUOTAS_OF_HARD = ("2/s:1", "1/day:1", "5/7ns:6", "999999937/h:3")
"""Their quotas: small and large numbers, a burst above and below the limit, a log of all entries or a part."""

THEOREMS: dict[Promise, str] = {
    conformance.returns_valid_fields: "fields",
    conformance.stays_within_its_bound: "bound",
    conformance.retry_after_is_exact: "wait suffices|wait is tight",
    conformance.never_means_a_cost_above_burst: "never",
    conformance.reset_after_is_exact: "reset",
    conformance.denied_hits_change_nothing: "denied",
    conformance.looks_change_nothing: "look",
    conformance.remaining_is_exact: "remaining",
    conformance.backward_steps_grant_nothing: "step back",
    decides_as_its_model: "denied|delay",
}
"""The theorems that a contract is about."""


def parse(text: str) -> Quota:
    rate, burst = text.split(":")
    return Quota.parse(rate, int(burst))


CASES = [(name, quota) for name in ALGORITHMS for quota in QUOTAS if name not in HARD or quota in QUOTAS_OF_HARD]
FAST_CASES = [(name, QUOTAS[0]) for name in ("token-bucket", "leaky-bucket", "fixed-window", "gcra")]


@pytest.mark.parametrize("case", mark_slow(CASES, FAST_CASES), ids="-".join)
def test_every_theorem_about_a_built_in_algorithm_is_proved(case: tuple[str, str]) -> None:
    name, quota = case
    proof = prove(ALGORITHMS[name], parse(quota))
    assert {finding.status for finding in proof.findings} == {PROVED}, proof
    assert proof.scope == ("for logs of at most 3 entries" if name == "sliding-log" and parse(quota).burst > 3 else "")
    names = {finding.name for finding in proof.findings}
    assert {theorem.name for theorem in GENERAL} | {"invariants", "bound"} <= names
    own = {"token-bucket": {"potential"}, "gcra": {"potential", "token-bucket"}, "leaky-bucket": {"delay"}}
    assert own.get(name, set()) <= names


def test_a_contract_has_its_theorem() -> None:
    assert {*conformance.CONTRACTS} <= THEOREMS.keys()


def reproduces(kind: type[Algorithm], finding: Finding) -> bool:
    """Return whether the real step decides each hit of a timeline so, from one of the states before it."""
    algorithm = kind.from_quota(parse(finding.quota.replace(", burst ", ":")))
    assert algorithm.start(finding.origin) == finding.new_state
    resets = [event.at + event.decision.reset_after_ns for event in finding.timeline]
    states = [finding.new_state, *map(algorithm.start, resets)]  # also that of a new key which another is compared with
    for event in finding.timeline:
        results = []
        for state in states:
            after = [*state]
            results.append((algorithm.step(after, event.at, event.cost), after))
        if event.by in ALGORITHMS:
            continue
        if (event.decision.row, event.state) not in results:
            return False
        states.append(event.state)
    return True


STEPS = {name: mutant for name, mutant in KERNELS.items() if mutant.breaks is not refunds_a_charge}
"""The mutants of steps."""

FRACTIONS = ("token bucket: float seconds", "token bucket: true division")

FEW = ["token bucket: a wait rounded down", "leaky bucket: a queue that serves at once", "gcra: saves up without end"]


@pytest.mark.parametrize("name", mark_slow([name for name in STEPS if name not in FRACTIONS], FEW))
def test_a_mutant_is_refuted_by_a_timeline_that_reproduces(name: str) -> None:
    mutant: Mutant = STEPS[name]
    names = THEOREMS[mutant.breaks].split("|")
    known = {finding.name for finding in prove(mutant.original, parse("7/3s:2"), 1).findings}
    quota = "7/3s:5" if mutant.original is SlidingCounter else "7/3s:2"
    proof = prove(mutant.made, parse(quota), names=[*known & {*names}])
    refuted = [finding for finding in proof.findings if finding.status == REFUTED]
    assert refuted
    assert all(reproduces(mutant.made, finding) for finding in refuted)
    assert not proof.is_complete


def test_a_refutation_of_the_invariants_names_the_violated_one() -> None:
    mutant = KERNELS["token bucket: refilled without cap"].made
    (finding,) = prove(mutant, parse("7/3s:5"), names=["invariants"]).findings
    assert (finding.status, finding.reason) == (REFUTED, "violated: tokens <= capacity")


@pytest.mark.parametrize("name", FRACTIONS)
def test_a_mutant_that_uses_fractions_is_rejected(name: str) -> None:
    with pytest.raises(InputError, match=r"whole numbers|integers"):
        prove(STEPS[name].made, parse("7/3s:5"))


# --- third-party algorithms


@pytest.fixture
def cooldown(tmp_path: Path) -> type[Algorithm]:
    (tmp_path / "cooldown.py").write_text(block("python", "class Cooldown"))
    return find(f"{tmp_path / 'cooldown.py'}:Cooldown")


def test_the_documented_algorithm_is_proved_by_invariants_that_are_found(cooldown: type[Algorithm]) -> None:
    proof = prove(cooldown, parse("7/3s:5"))
    assert proof.is_complete
    assert proof.invariants == ["latest time <= end of the pause", "end of the pause <= latest time + pause"]
    assert [finding.name for finding in proof.findings] == [*(theorem.name for theorem in GENERAL), "bound"]


def test_a_third_party_algorithm_is_refuted(toll: str) -> None:
    proof = prove(find(toll), parse("2/s:5"))
    refuted = [finding for finding in proof.findings if finding.status == REFUTED]
    assert [finding.name for finding in refuted] == [
        "wait suffices", "wait is tight", "never", "denied", "look", "remaining", "reset", "bound",
    ]  # fmt: skip
    assert all(reproduces(find(toll), finding) for finding in refuted)


def test_a_bound_that_is_not_declared_is_not_claimed(cooldown: type[Algorithm]) -> None:
    kind = type("Unbounded", (cooldown,), {"traits": traits_of(cooldown)._replace(at_most=None)})
    assert "bound" not in {finding.name for finding in prove(kind, parse("2/s:5")).findings}


def test_a_penalty_and_windows_that_differ_in_length_are_rejected() -> None:
    penalized = penalize(TokenBucket, Penalty.parse({"after": 3, "within": "1min", "for": "5min"}))
    with pytest.raises(InputError, match=r"has a penalty, .* prove the algorithm within, token-bucket"):
        prove(penalized, parse("2/s:5"))
    with pytest.raises(InputError, match=r"at 1000/month in UTC cannot be proved, because its windows differ"):
        prove(ALGORITHMS["fixed-window"], Quota.parse("1000/month"))


def test_windows_of_days_by_the_calendar_are_proved() -> None:
    assert prove(ALGORITHMS["fixed-window"], Quota.parse("1000/day").in_timezone("UTC")).is_complete


# --- time


def test_a_theorem_without_time_is_not_proved() -> None:
    proof = prove(TokenBucket, parse("2/s:5"), timeout_ns=1)
    assert {finding.status for finding in proof.findings if finding.name != "no errors"} == {UNDECIDED}
    assert {finding.reason for finding in proof.findings if finding.reason} == {"not decided within 1 ns"}


X, Y, Z = z3.Ints("x y z")
UNSOLVED = X * X * X + Y * Y * Y + Z * Z * Z == 114
"""An open problem: no solution is known."""


def test_the_solver_stops_after_its_time() -> None:
    with pytest.raises(OutOfTimeError):
        TimeBudget(0.05).check(UNSOLVED)


@pytest.mark.skipif(sys.platform == "win32", reason="another process would get the signal, too")
def test_the_solver_stops_at_ctrl_c() -> None:
    def check_and_interrupt() -> None:
        Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        TimeBudget(60).check(UNSOLVED)

    with pytest.raises(KeyboardInterrupt):
        check_and_interrupt()


def test_a_wrong_translation_is_an_internal_error_not_a_refutation() -> None:
    algorithm = TokenBucket.from_quota(parse("2/s:5"))
    mutant = KERNELS["token bucket: a denied hit charges"].made.from_quota(parse("2/s:5"))
    wrong = TranslatedSteps(mutant)
    wrong.algorithm = algorithm
    prover = Prover(Subject(algorithm, parse("2/s:5"), traits_of(algorithm)), wrong, 10)
    denied = next(theorem for theorem in GENERAL if theorem.name == "denied")
    with pytest.raises(RuntimeError, match="the translation of token-bucket is wrong"):
        prover.find_counterexample(denied, TimeBudget(10))


def test_a_step_that_raises_an_error_is_refuted_by_it(cooldown: type[Algorithm], tmp_path: Path) -> None:
    path = tmp_path / "cooldown.py"
    right, wrong = "if cost <= self.burst else NEVER", "// (cost - 3) if cost < 6 else NEVER"
    path.write_text(path.read_text().replace(right, wrong))
    (failed,) = prove(find(f"{path}:Cooldown"), parse("2/s:5"), names=["no errors"]).findings
    assert failed.status == REFUTED
    assert [event.cost for event in failed.timeline][-1] == 3
