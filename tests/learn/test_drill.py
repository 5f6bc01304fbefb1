"""Command `drill` and its grader: a submission is compared with the exact algorithm on the shortest timeline."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest
from cli_runner import SCENARIOS, get_error, get_output, invoke, run_python
from slow_parameters import mark_slow

from ratelab import ALGORITHMS, Quota
from ratelab.lab.conformance import CONTRACTS
from ratelab.learn.drill import exercise, grade
from ratelab.learn.grader import evaluate
from ratelab.learn.questions import QUESTIONS, Question
from ratelab.learn.submission import load_submission
from ratelab.learn.verdict import Verdict

BUILT_IN = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")


def source(name: str, old: str = "", new: str = "") -> str:
    """Return the source of an algorithm's `step`, with one change."""
    text = dedent(inspect.getsource(ALGORITHMS[name].step))
    assert old in text
    return text.replace(old, new) if old else text


def requests(verdict: Verdict) -> list[tuple[float, int]]:
    return [(one.at / 1e9, one.cost) for one in verdict.requests]


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_step_is_correct_and_keeps_every_promise(name: str) -> None:
    verdict = evaluate(name, source(name))
    assert (verdict.correct, verdict.message, verdict.requests) == (True, "correct", ())
    assert len(verdict.promises) == 9
    assert all(holds for _, holds in verdict.promises)


BUGS = {
    "a burst that never fits": ("token-bucket", "price <= tokens", "price < tokens"),
    "a denied hit that charges": ("token-bucket", "tokens - price if allowed else tokens", "max(0, tokens - price)"),
    "a finite wait above the burst": ("token-bucket", "if price <= capacity else NEVER", ""),
    "a queue without delay": ("leaky-bucket", "wait if allowed else 0", "0"),
    "a window that starts late": ("fixed-window", "now // window", "(now - 1) // window"),
    "a window that opens again": ("fixed-window", "latest > index", "latest != index"),
    "a log that resets early": ("sliding-log", "(head - 1) % size", "(head + 1) % size"),
    "a backward clock step that drains": ("token-bucket", "now = now if now > last else last", ""),
}
SHORTEST = {
    "a burst that never fits": ("allowed must be True, got False", [(0, 5)]),
    "a denied hit that charges": ("allowed must be True, got False", [(0, 6), (0, 1)]),
    "a finite wait above the burst": ("retry_after_ns must be NEVER, got 500000000", [(0, 6)]),
    "a queue without delay": ("delay_ns must be 2000000000, got 0", [(0, 5), (0.5, 1)]),
    "a window that starts late": ("allowed must be True, got False", [(0, 5), (2.5, 1)]),
    "a window that opens again": (
        "after a backward clock step, remaining must be 4, got 5",
        [(0, 0), (-1e-9, 1), (0, 0)],
    ),
    "a log that resets early": ("reset_after_ns must be 2500000000, got 0", [(0, 1)]),
    "a backward clock step that drains": (
        "after a backward clock step, remaining must be an integer from 0 to NEVER, got -10",
        [(0, 0), (-7.5, 1)],
    ),
}


@pytest.mark.parametrize("bug", mark_slow(BUGS, [*BUGS][:2]))
def test_a_bug_is_shown_on_the_shortest_timeline(bug: str) -> None:
    name, old, new = BUGS[bug]
    verdict = evaluate(name, source(name, old, new))
    assert not verdict.correct
    assert (verdict.message, requests(verdict)) == SHORTEST[bug]
    assert not all(holds for _, holds in verdict.promises)


def test_a_look_creates_the_key_if_the_first_request_comes_later() -> None:
    overflowing = source("token-bucket", "refilled if refilled < capacity else capacity", "refilled")
    verdict = evaluate("token-bucket", overflowing)
    assert requests(verdict) == [(0, 0), (0.9375, 1)]
    assert verdict.requests[0].yours == verdict.requests[0].exact


@pytest.mark.slow
def test_the_verdict_contains_the_printed_text_of_the_shown_timeline() -> None:
    lines = source("gcra", "early <= 0", "early < 0").splitlines()
    printing = "\n".join([*lines[:2], "    print('now', now, chr(27))", *lines[2:]])
    assert evaluate("gcra", printing).printed == "now 0 \x1b\n"
    assert len(evaluate("gcra", printing.replace("chr(27)", "'x' * 9999")).printed) == 1000


@pytest.mark.slow
def test_no_request_of_the_shortest_timeline_can_be_left_out() -> None:
    rounding = source("token-bucket", "(now - last) * limit", "(now - last) * limit // period * period")
    verdict = evaluate("token-bucket", rounding)
    quota = Quota.parse(*[part(text) for part, text in zip((str, int), verdict.quota.split(", burst "), strict=True)])
    exact = ALGORITHMS["token-bucket"].from_quota(quota)
    submitted = load_submission(rounding, ALGORITHMS["token-bucket"]).from_quota(quota)
    assert len(verdict.requests) == 3
    for left_out in (None, 0, 1, 2):
        rest = [one for index, one in enumerate(verdict.requests) if index != left_out]
        states = exact.start(0), submitted.start(0)
        same = all(
            exact.step(states[0], one.at, one.cost)[0] == submitted.step(states[1], one.at, one.cost)[0] for one in rest
        )
        assert same == (left_out is not None)


def test_values_kept_outside_the_state_are_lost() -> None:
    cached = "seen = {}\n" + source(
        "fixed-window", "used = state[0], state[1]", "used = seen.get(id(state), (state[0], 0))"
    )
    cached = cached.replace("state[1] = used", "seen[id(state)] = index, used")
    assert not evaluate("fixed-window", cached).correct


def test_a_random_decision_is_not_correct() -> None:
    text = "import random\n" + source("gcra", "early <= 0", "early <= 0 and random.random() < 0.99")
    assert not evaluate("gcra", text).correct


# --- the command


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_exercise_is_a_valid_file(name: str) -> None:
    text = get_output("drill", name)
    assert text == exercise(ALGORITHMS[name])
    assert max(map(len, text.splitlines())) <= 120
    load_submission(text, ALGORITHMS[name])


def test_the_exit_status_is_1_unless_the_file_is_correct(tmp_path: Path) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(source("gcra"))
    assert "gcra: correct" in get_output("drill", "gcra", answer)
    answer.write_text(source("gcra", "early <= 0", "early < 0"))
    result = invoke("drill", "gcra", answer)
    assert result.exit_code == 1
    assert re.search(r"^  0s +5 +denied +admitted", result.stdout, re.MULTILINE)
    promises = [(promise.__doc__ or "").split("\n")[0].replace("`", "") for promise in CONTRACTS]
    listed = re.findall(r"^([+x]) (.+)$", result.stdout, re.MULTILINE)
    assert [text for _, text in listed] == promises
    assert {mark for mark, _ in listed} == {"+", "x"}


@pytest.mark.slow
def test_a_byte_order_mark_is_skipped_and_control_characters_are_escaped(tmp_path: Path) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(source("gcra", "allowed = early <= 0", "allowed = early < 0; print('early', early, chr(27))"))
    answer.write_bytes("\ufeff".encode() + answer.read_bytes())
    output = invoke("drill", "gcra", answer).stdout
    assert "Printed during these requests:\n\nearly 0 \\x1b\n" in output
    assert "SyntaxError" not in output


def test_an_invalid_drill_is_rejected_in_one_line(tmp_path: Path) -> None:
    assert "did you mean gcra?" in get_error("drill", "gcr")
    assert "cannot read" in get_error("drill", "gcra", tmp_path / "none.py")
    assert "leave out gcra" in get_error("drill", "--answers", "gcra")


def test_there_is_an_exercise_for_each_algorithm_and_ten_questions() -> None:
    assert re.findall("ratelab drill ([a-z-]+) > answer.py", get_output("drill")) == list(ALGORITHMS)
    without, with_answers = get_output("drill", "--questions"), get_output("drill", "--answers")
    assert len(re.findall(r"^\d+\. ", without, re.MULTILINE)) == len(QUESTIONS) == 11
    assert all(one.command in with_answers and one.command not in without for one in QUESTIONS)


*SHORT, LONG = QUESTIONS


@pytest.mark.parametrize("question", mark_slow(SHORT, QUESTIONS[:2]), ids=lambda question: question.question[:40])
def test_the_command_of_each_answer_prints_its_evidence(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCENARIOS.parent)
    program, *arguments = shlex.split(question.command)
    output = run_python(*arguments) if program == "python" else invoke(*arguments).output
    assert re.search(question.evidence, " ".join(output.split()))


def test_the_notebook_shows_the_evidence_of_the_answer_that_takes_long() -> None:
    notebook = json.loads((SCENARIOS.parent / "notebooks" / "03-drills.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    shown = [line for output in outputs for line in output.get("data", {}).get("text/markdown", ())]
    assert re.search(LONG.evidence, " ".join("".join(shown).split()))


# --- proofs


def test_a_correct_answer_is_proved_for_all_times() -> None:
    rewritten = """
from ratelab import NEVER

ZERO = 0

def step(self, state, now, cost):
    now = max(now, state[1])
    tokens = min(self.capacity, state[0] + (now - state[1]) * self.limit)
    price, wait = cost * self.period, ZERO
    allowed = tokens >= price
    if allowed:
        tokens -= price
    elif cost * self.period > self.capacity:
        wait = NEVER
    else:
        wait = (price - tokens + self.limit - 1) // self.limit
    state[0] = tokens
    state[1] = now
    return allowed, tokens // self.period, wait, (self.capacity - tokens + self.limit - 1) // self.limit, 0
"""
    verdict = grade("token-bucket", rewritten)
    assert verdict.correct
    assert verdict.proof == "Proved for all times, states and costs at 7/3s, burst 3: every decision is exact."


def test_an_answer_that_cannot_be_translated_is_graded_without_a_proof() -> None:
    computed = source("gcra") + "\nstep = staticmethod(step).__func__\n"
    verdict = grade("gcra", computed)
    assert (verdict.correct, verdict.proof) == (True, "")
