"""Worked examples: decisions of the lesson, and their arithmetic."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pytest
from cli_runner import get_output
from custom_algorithms import written

from ratelab import ALGORITHMS, NEVER, Decision, Quota
from ratelab.learn.worked_example import WorkedStep, build_lesson, work_out, work_out_lesson
from ratelab.quota import UNITS

BUILT_IN = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")
QUOTAS = [Quota.parse(*one) for one in (("2/s", 5), ("100/min", 20), ("7/13s", 7), ("1/day", 1), ("3/1ns", 4))]

every_lesson = pytest.mark.parametrize(
    ("name", "quota"), [(name, quota) for name in BUILT_IN for quota in QUOTAS], ids=str
)


@cache
def work_out_built_in(name: str, quota: Quota) -> list[WorkedStep]:
    """Work out the lesson of a quota, once for all tests."""
    lesson = build_lesson(quota)
    return [*work_out_lesson(ALGORITHMS[name].from_quota(lesson.quota), lesson.requests)]


@every_lesson
def test_a_lesson_decides_as_the_algorithm_does_in_nanoseconds(name: str, quota: Quota) -> None:
    lesson, algorithm = build_lesson(quota), ALGORITHMS[name].from_quota(quota)
    unit, state = UNITS[lesson.unit], algorithm.start(lesson.nanoseconds(lesson.requests[0].at))
    for request, step in zip(lesson.requests, work_out_built_in(name, quota), strict=True):
        exact = Decision(*algorithm.step(state, lesson.nanoseconds(request.at), request.cost))
        assert step.decision[:2] == exact[:2]
        assert [time for time in step.decision[2:5] if time < NEVER] == [
            -(-time // unit) for time in exact[2:5] if time < NEVER
        ]


@every_lesson
def test_the_arithmetic_is_correct(name: str, quota: Quota) -> None:
    for step in work_out_built_in(name, quota):
        for line in step.lines:
            parts = re.fullmatch(r"\w+ = ([-+*/()<= \d]+?)(?: = |: )(-?\d+|yes|no)(?: \(the last of \d+\))?", line)
            if parts:
                result = eval(parts[1])  # noqa: S307  (digits and signs)
                assert parts[2] == ({True: "yes", False: "no"}[result] if type(result) is bool else str(result))
        assert [line.rpartition(": ")[2] for line in step.lines if line.startswith("allowed = ")] == [
            "yes" if step.decision.allowed else "no"
        ]


@every_lesson
def test_a_wait_or_a_delay_is_the_last_line_of_the_arithmetic(name: str, quota: Quota) -> None:
    for step in work_out_built_in(name, quota):
        times = [time for time in (step.decision.retry_after_ns, step.decision.delay_ns) if 0 < time < NEVER]
        assert all(step.lines[-1].endswith(f" = {time}") for time in times)
        assert not any(str(NEVER) in line for line in step.lines)


def test_the_arithmetic_shows_the_numbers_of_the_step_itself() -> None:
    bucket = ALGORITHMS["token-bucket"].from_quota(build_lesson(QUOTAS[0]).quota)
    tracer, state = sys.gettrace(), [250, 2250]
    assert work_out(bucket, state, 2500, 1).lines == [
        "refilled = 250 + (2500 - 2250) * 1 = 500",
        "tokens = refilled = 500",
        "price = 1 * 500 = 500",
        "allowed = 500 <= 500: yes",
    ]
    assert (state, sys.gettrace()) == ([0, 2500], tracer)


SHAPES = {
    "a returned expression": (
        "return allowed, 0, 0 if",
        "return state[0] % 2 == 1, 0, 0 if",
        "allowed = 5 % 2 == 1: yes",
    ),
    "a statement on several lines": (
        "state[0] % 2 == 1\n",
        "bool(\n            state[0] % 2\n        )\n",
        "= bool(5 % 2): yes",
    ),
    "a loop": ("allowed = ", "while cost > 3: cost -= 1\n        allowed = cost and ", "cost = 4 - 1 = 3"),
    "a state without names": (
        '    traits: ClassVar[Traits] = Traits(state=("requests",), at_most=(7, 0))\n',
        "",
        "allowed = 5 % 2 == 1: yes",
    ),
}


@pytest.mark.parametrize(("old", "new", "line"), SHAPES.values(), ids=SHAPES.keys())
def test_a_step_of_another_shape_is_worked_out(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert line in get_output("explain", written(tmp_path, old, new))


def test_a_loop_on_one_line_that_is_not_entered_shows_no_assignment(tmp_path: Path) -> None:
    old, new, _ = SHAPES["a loop"]
    text = get_output("explain", written(tmp_path, old, new))
    assert "cost = 4 - 1 = 3" in text
    assert "cost = 1 - 1" not in text
