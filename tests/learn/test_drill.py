"""An answer is held to the exact algorithm, and fails on the shortest timeline there is."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from textwrap import dedent

import pytest
from running import SCENARIOS, invoke, python, refused, shown

from ratelab import ALGORITHMS, Quota
from ratelab.learn.drill import task
from ratelab.learn.grader import examine
from ratelab.learn.questions import QUESTIONS, Question
from ratelab.learn.submission import answered
from ratelab.learn.verdict import Verdict


def source(name: str, right: str = "", wrong: str = "") -> str:
    """Return an algorithm's own step as an answer, with one thing changed."""
    text = dedent(inspect.getsource(ALGORITHMS[name].step))
    assert right in text
    return text.replace(right, wrong) if right else text


def requests(verdict: Verdict) -> list[tuple[float, int]]:
    return [(row.at / 1e9, row.cost) for row in verdict.rows]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_real_step_is_right_and_keeps_every_promise(name: str) -> None:
    verdict = examine(name, source(name))
    assert (verdict.right, verdict.words, verdict.rows) == (True, "right", ())
    assert len(verdict.promises) == 9
    assert all(kept for _, kept in verdict.promises)


MISTAKES = {
    "a burst that is never whole": ("token-bucket", "price <= tokens", "price < tokens"),
    "a denied hit that charges": ("token-bucket", "tokens - price if allowed else tokens", "max(0, tokens - price)"),
    "a wait for what no wait helps": ("token-bucket", "if price <= capacity else NEVER", ""),
    "a queue that serves at once": ("leaky-bucket", "wait if allowed else 0", "0"),
    "a window that begins late": ("fixed-window", "now // window", "(now - 1) // window"),
    "a window that opens again": ("fixed-window", "latest > index", "latest != index"),
    "a log that is new again early": ("sliding-log", "(head - 1) % size", "(head + 1) % size"),
    "a bucket that a falling time drains": ("token-bucket", "now = now if now > last else last", ""),
}
SHOWN = {
    "a burst that is never whole": ("allowed is False, and should be True", [(0, 5)]),
    "a denied hit that charges": ("allowed is False, and should be True", [(0, 6), (0, 1)]),
    "a wait for what no wait helps": ("retry_after_ns is 500000000, and should be NEVER", [(0, 6)]),
    "a queue that serves at once": ("delay_ns is 0, and should be 2000000000", [(0, 5), (0.5, 1)]),
    "a window that begins late": ("allowed is False, and should be True", [(0, 5), (2.5, 1)]),
    "a window that opens again": ("the time fell, and remaining is 5, and should be 4", [(0, 0), (-1e-9, 1), (0, 0)]),
    "a log that is new again early": ("reset_after_ns is 0, and should be 2500000000", [(0, 1)]),
    "a bucket that a falling time drains": (
        "the time fell, and remaining must be a whole number from 0 to NEVER, and was -10",
        [(0, 0), (-7.5, 1)],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_shown_on_the_shortest_timeline(mistake: str) -> None:
    name, right, wrong = MISTAKES[mistake]
    verdict = examine(name, source(name, right, wrong))
    assert not verdict.right
    assert (verdict.words, requests(verdict)) == SHOWN[mistake]
    assert not all(kept for _, kept in verdict.promises)


def test_where_the_first_request_comes_later_a_look_shows_when_the_key_is_first_seen() -> None:
    answer = source("token-bucket", "refilled if refilled < capacity else capacity", "refilled")
    verdict = examine("token-bucket", answer)
    assert requests(verdict) == [(0, 0), (0.9375, 1)]
    assert verdict.rows[0].yours == verdict.rows[0].exact


def test_what_an_answer_prints_on_the_timeline_shown_is_told() -> None:
    lines = source("gcra", "early <= 0", "early < 0").splitlines()
    printing = "\n".join([*lines[:2], "    print('now', now, chr(27))", *lines[2:]])
    assert examine("gcra", printing).printed == "now 0 \x1b\n"
    assert len(examine("gcra", printing.replace("chr(27)", "'x' * 9999")).printed) == 1000


def test_no_request_of_the_shortest_timeline_can_be_left_out() -> None:
    answer = source("token-bucket", "(now - last) * limit", "(now - last) * limit // period * period")
    verdict = examine("token-bucket", answer)
    quota = Quota.parse(*[part(text) for part, text in zip((str, int), verdict.quota.split(", burst "), strict=True)])
    exact = ALGORITHMS["token-bucket"].from_quota(quota)
    theirs = answered(answer, ALGORITHMS["token-bucket"]).from_quota(quota)
    assert len(verdict.rows) == 3
    for left_out in (None, 0, 1, 2):
        rows = [row for index, row in enumerate(verdict.rows) if index != left_out]
        right, wrong = exact.start(0), theirs.start(0)
        alike = all(exact.step(right, row.at, row.cost)[0] == theirs.step(wrong, row.at, row.cost)[0] for row in rows)
        assert alike == (left_out is not None)


def test_what_is_remembered_elsewhere_than_in_the_state_is_of_no_use() -> None:
    kept = "seen = {}\n" + source(
        "fixed-window", "used = state[0], state[1]", "used = seen.get(id(state), (state[0], 0))"
    )
    kept = kept.replace("state[1] = used", "seen[id(state)] = index, used")
    assert not examine("fixed-window", kept).right


def test_an_answer_that_changes_its_mind_is_not_right() -> None:
    text = "import random\n" + source("gcra", "early <= 0", "early <= 0 and random.random() < 0.99")
    assert not examine("gcra", text).right


# --- the command


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_drill_is_a_file_that_runs_and_is_not_yet_right(name: str) -> None:
    text = shown("drill", name)
    assert text == task(ALGORITHMS[name])
    assert max(map(len, text.splitlines())) <= 120
    answered(text, ALGORITHMS[name])


def test_an_answer_is_graded_and_the_exit_status_says_so(tmp_path: Path) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(source("gcra"))
    assert "gcra: right" in shown("drill", "gcra", answer)
    answer.write_text(source("gcra", "early <= 0", "early < 0"))
    done = invoke("drill", "gcra", answer)
    assert done.exit_code == 1
    assert re.search(r"^  0s +5 +denied +admitted", done.stdout, re.MULTILINE)
    assert "x Admit as much as remains, and not one more." in done.stdout


def test_an_answer_may_begin_with_a_mark_and_what_it_prints_harms_no_terminal(tmp_path: Path) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(source("gcra", "allowed = early <= 0", "allowed = early < 0; print('early', early, chr(27))"))
    answer.write_bytes("\ufeff".encode() + answer.read_bytes())
    told = invoke("drill", "gcra", answer).stdout
    assert "On these requests it prints:\n\nearly 0 \\x1b\n" in told
    assert "SyntaxError" not in told


def test_what_cannot_be_graded_is_told_in_a_line(tmp_path: Path) -> None:
    assert "did you mean gcra?" in refused("drill", "gcr")
    assert "cannot be read" in refused("drill", "gcra", tmp_path / "none.py")
    assert "leave out gcra" in refused("drill", "--answers", "gcra")


def test_there_is_a_drill_for_each_algorithm_and_ten_questions() -> None:
    assert re.findall("ratelab drill ([a-z-]+) > answer.py", shown("drill")) == list(ALGORITHMS)
    asked, answered_too = shown("drill", "--questions"), shown("drill", "--answers")
    assert len(re.findall(r"^\d+\. ", asked, re.MULTILINE)) == len(QUESTIONS) == 10
    assert all(one.command in answered_too and one.command not in asked for one in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.question[:40])
def test_each_answer_is_backed_by_what_its_command_prints(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCENARIOS.parent)
    program, *arguments = shlex.split(question.command)
    printed = python(*arguments) if program == "python" else invoke(*arguments).output
    assert re.search(question.shows, " ".join(printed.split()))
