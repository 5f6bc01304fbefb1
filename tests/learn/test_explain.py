"""An algorithm is explained in its own words, with its own source and with arithmetic that is right."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest
from own_algorithm import written
from running import PLAIN, refused, shown

from ratelab import ALGORITHMS, NEVER, Decision, Quota
from ratelab.learn.explain import greediest
from ratelab.learn.questions import ADVICE
from ratelab.learn.source import teaching_source
from ratelab.learn.worked_example import lesson, work_out, worked
from ratelab.quota import UNITS

QUOTAS = [Quota.parse(*one) for one in (("2/s", 5), ("100/min", 20), ("7/13s", 7), ("1/day", 1), ("3/1ns", 4))]
ROOT = Path(__file__).parents[2]
MANUAL = [
    page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "ratelab" / "docs" / "algorithms.md")
    if page.is_file()
]
BUILT_IN = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")
ours = pytest.mark.parametrize("name", BUILT_IN)


@ours
def test_a_built_in_class_explains_its_idea_in_few_sentences_and_names_a_source(name: str) -> None:
    _, idea, source = (inspect.getdoc(ALGORITHMS[name]) or "").split("\n\n")
    assert len(re.findall(r"[a-z0-9](?:`)?[.](?=\s|$)", idea)) in range(3, 7)
    assert source


@ours
def test_the_advice_on_an_algorithm_can_be_spoken_and_is_in_the_manual(name: str) -> None:
    advice = ADVICE[ALGORITHMS[name]]
    assert advice.say_aloud.startswith("I would ")
    rows = [line for page in MANUAL for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert advice.choose_when in [row.split("|")[-2].strip() for row in rows]


@ours
@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_a_lesson_decides_as_the_algorithm_does_in_nanoseconds(name: str, quota: Quota) -> None:
    taught, exact = lesson(quota), ALGORITHMS[name].from_quota(quota)
    unit, state = UNITS[taught.unit], exact.start(taught.nanoseconds(taught.requests[0].at))
    decided = worked(ALGORITHMS[name].from_quota(taught.quota), taught.requests)
    for request, done in zip(taught.requests, decided, strict=True):
        made = Decision(*exact.step(state, taught.nanoseconds(request.at), request.cost))
        assert done.decision[:2] == made[:2]
        assert [wait for wait in done.decision[2:] if wait < NEVER] == [-(-ns // unit) for ns in made[2:] if ns < NEVER]


@ours
@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_the_arithmetic_shown_is_right(name: str, quota: Quota) -> None:
    taught = lesson(quota)
    for done in worked(ALGORITHMS[name].from_quota(taught.quota), taught.requests):
        for line in done.lines:
            reckoned = re.fullmatch(r"\w+ = ([-+*/()<= \d]+?)(?: = |: )(-?\d+|yes|no)(?: \(the last of \d+\))?", line)
            if reckoned:
                result = eval(reckoned[1])  # noqa: S307  (digits and signs)
                assert reckoned[2] == ({True: "yes", False: "no"}[result] if type(result) is bool else str(result))
        assert [line.rpartition(": ")[2] for line in done.lines if line.startswith("allowed = ")] == [
            "yes" if done.decision.allowed else "no"
        ]


@ours
@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_a_wait_or_a_delay_that_is_told_is_the_last_line_of_the_arithmetic(name: str, quota: Quota) -> None:
    for done in worked(ALGORITHMS[name].from_quota(lesson(quota).quota), lesson(quota).requests):
        told = [wait for wait in (done.decision.retry_after_ns, done.decision.delay_ns) if 0 < wait < NEVER]
        assert all(done.lines[-1].endswith(f" = {wait}") for wait in told)
        assert not any(str(NEVER) in line for line in done.lines)


def test_a_burst_of_one_has_no_last_part_to_ask_for() -> None:
    text = shown("explain", "token-bucket", "--burst", "1")
    assert "0s, cost 1: all of a burst, as a window begins, to see" in text
    assert "the last of it" not in text


def test_times_are_told_exactly() -> None:
    assert "wait 49.25s" in shown("explain", "sliding-log", "--burst", "100")
    assert "999.999ms, cost 1: " in shown("explain", "gcra", "--rate", "1000000/s", "--burst", "1000000")


def test_a_request_is_worked_out_from_the_step_itself() -> None:
    bucket = ALGORITHMS["token-bucket"].from_quota(lesson(QUOTAS[0]).quota)
    tracer, state = sys.gettrace(), [250, 2250]
    assert work_out(bucket, state, 2500, 1).lines == [
        "refilled = 250 + (2500 - 2250) * 1 = 500",
        "tokens = refilled = 500",
        "price = 1 * 500 = 500",
        "allowed = 500 <= 500: yes",
    ]
    assert (state, sys.gettrace()) == ([0, 2500], tracer)


@ours
def test_an_explanation_has_all_its_parts_and_fits_a_terminal(name: str) -> None:
    text = shown("explain", name, "--rate", "100/min", "--burst", "20")
    assert max(map(len, text.splitlines())) == 80
    assert "    return allowed, " in text
    for part in (
        "at 100/min, burst 20",
        "The source",
        "Worked out, in ms",
        "no wait helps",
        "at most",
        "in any 12s",
    ):
        assert part in text


def test_algorithms_are_set_beside_each_other_on_the_same_requests() -> None:
    text = shown("explain", "--compare", "token-bucket", "leaky-bucket")
    assert max(map(len, text.splitlines())) == 80
    assert re.search(r"^at most +2x burst - 1 in any 2\.5s: 9 +burst \+ 1 request in any 2\.5s: 6", text, re.MULTILINE)
    assert text.count("leaves after 2s") == 2


def test_as_many_stand_abreast_as_there_is_room_for_and_no_word_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = shown("explain", "--compare", *BUILT_IN)
    assert max(map(len, narrow.splitlines())) == 80
    assert "…" not in narrow
    monkeypatch.setitem(PLAIN, "COLUMNS", "160")
    wide = shown("explain", "--compare", *BUILT_IN)
    assert re.search(r"^ +" + " +".join(BUILT_IN), wide, re.MULTILINE)
    assert len(re.findall(r"^idea ", narrow, re.MULTILINE)) == 2 * len(re.findall(r"^idea ", wide, re.MULTILINE)) == 2


@ours
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_source_is_numbered_and_keeps_every_word(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLAIN, "COLUMNS", str(columns))
    source = teaching_source(ALGORITHMS[name]).splitlines()
    printed = shown("explain", name).split("The source -")[1].split("Worked out, in")[0].splitlines()[2:-1]
    assert max(map(len, printed)) <= max(columns, 80)
    lines: list[str] = []
    for line in printed:
        number, text = line[:4].strip(), line[5:]
        assert number in ("", str(len(lines) + 1))
        if number:
            lines.append(text)
        else:  # the rest of a line too long for the terminal
            lines[-1] += f" {text}"
    assert [(indent(line), line.split()) for line in lines] == [(indent(line), line.split()) for line in source]
    fits = all(len(line) <= max(columns, 80) - 5 for line in source)
    assert (len(printed) == len(source)) == fits


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def test_each_request_says_what_it_is_there_to_see_and_the_promise_in_numbers() -> None:
    text = " ".join(shown("explain", "token-bucket", "--rate", "100/min", "--burst", "20").split())
    requests = lesson(Quota.parse("100/min", 20)).requests
    assert all(f"cost {one.cost}: {one.what}, to see {one.shows}" in text for one in requests)
    assert "at most 2x burst - 1 in any 12s: 39 where the quota grants 20" in text


def test_a_promise_is_what_a_greedy_client_gets_or_more_and_then_said_so() -> None:
    kinds = {name: ALGORITHMS[name] for name in BUILT_IN}
    for quota in QUOTAS[:-1]:
        got = {name: greediest(kind.from_quota(quota), quota) for name, kind in kinds.items()}
        promised = {name: kind.at_most[0] * quota.burst + kind.at_most[1] for name, kind in kinds.items()}  # type: ignore[attr-defined]
        assert got == {**promised, "leaky-bucket": quota.burst}, quota
    assert "6 where the quota grants 5; a greedy client gets 5 by requests" in " ".join(
        shown("explain", "leaky-bucket").split()
    )
    assert "greedy" not in shown("explain", "token-bucket")


def test_no_line_of_what_is_printed_ends_in_blanks() -> None:
    for command in (["explain", "gcra"], ["explain", "--compare", "gcra", "token-bucket"], ["algorithms"]):
        assert not [line for line in shown(*command).splitlines() if line != line.rstrip()]


def test_several_are_explained_one_after_the_other() -> None:
    assert re.findall("^(.*) at 2/s, burst 5$", shown("explain", "gcra", "fixed-window"), re.MULTILINE) == [
        "gcra",
        "fixed-window",
    ]


def test_an_outside_algorithm_is_explained_as_far_as_it_goes(toll: str) -> None:
    text = shown("explain", toll)
    assert "allowed = 5 % 2 == 1: yes" in text
    assert "requests 5" in text
    assert "choose when" not in text


SHAPES = {
    "a returned expression": (
        "return allowed, 0, 0 if",
        "return state[0] % 2 == 1, 0, 0 if",
        "allowed = 5 % 2 == 1: yes",
    ),
    "a line that is broken": (
        "state[0] % 2 == 1\n",
        "bool(\n            state[0] % 2\n        )\n",
        "= bool(5 % 2): yes",
    ),
    "a loop": ("allowed = ", "while cost > 3: cost -= 1\n        allowed = cost and ", "cost = 4 - 1 = 3"),
    "no names": ('    remembers: ClassVar[tuple[str, ...]] = ("requests",)\n', "", "allowed = 5 % 2 == 1: yes"),
}


@pytest.mark.parametrize(("right", "wrong", "line"), SHAPES.values(), ids=SHAPES.keys())
def test_a_step_of_another_shape_is_worked_out_too(tmp_path: Path, right: str, wrong: str, line: str) -> None:
    assert line in shown("explain", written(tmp_path, right, wrong))


def test_what_cannot_be_explained_is_told_in_a_line(tmp_path: Path) -> None:
    assert "did you mean gcra?" in refused("explain", "gcr")
    assert "toll failed: ZeroDivisionError" in refused("explain", written(tmp_path, "% 2", "% 0"))
    assert "rate must look like" in refused("explain", "gcra", "--rate", "fast")
