"""Command `explain`: the texts, source code and worked example of algorithms, alone and side by side."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from cli_runner import PLAIN, get_error, get_output
from custom_algorithms import written
from slow_parameters import mark_slow

from ratelab import ALGORITHMS, Quota, traits_of
from ratelab.learn.explain import count_greedy_admissions
from ratelab.learn.questions import ADVICE
from ratelab.learn.source import teaching_source
from ratelab.learn.worked_example import build_lesson

ROOT = Path(__file__).parents[2]
MANUAL = [
    page.read_text(encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "ratelab" / "docs" / "algorithms.md")
    if page.is_file()
]
BUILT_IN = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")

every_algorithm = pytest.mark.parametrize("name", BUILT_IN)


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


@every_algorithm
def test_a_docstring_has_an_idea_of_few_sentences_and_a_reference(name: str) -> None:
    _, idea, reference = (inspect.getdoc(ALGORITHMS[name]) or "").split("\n\n")
    assert len(re.findall(r"[a-z0-9](?:`)?[.](?=\s|$)", idea)) in range(3, 7)
    assert reference


@every_algorithm
def test_the_advice_can_be_spoken_and_agrees_with_the_manual(name: str) -> None:
    advice = ADVICE[ALGORITHMS[name]]
    assert advice.say_aloud.startswith("I would ")
    rows = [line for page in MANUAL for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert advice.choose_when in [row.split("|")[-2].strip() for row in rows]
    text = " ".join(get_output("explain", name).split())
    assert f"choose when {advice.choose_when} ".replace("`", "") in text
    assert f"say aloud {advice.say_aloud}" in text


@pytest.mark.parametrize(
    ("rate", "end"),
    [
        ("10/min", "1 min, counted from 1970-01-01 00:00 UTC"),
        ("1000/day", "1 day, at midnight UTC"),
        ("5000/week", "7 days, on Thursdays at 00:00 UTC"),
    ],
)
def test_an_explanation_states_when_a_window_ends(rate: str, end: str) -> None:
    text = " ".join(get_output("explain", "fixed-window", "--rate", rate).split())
    assert f"windows one ends every {end}" in text


@every_algorithm
def test_an_explanation_has_all_its_parts_and_fits_a_terminal(name: str) -> None:
    text = get_output("explain", name, "--rate", "100/min", "--burst", "20")
    assert max(map(len, text.splitlines())) == 80
    assert "    return allowed, " in text
    for part in (
        "at 100/min, burst 20",
        "Source",
        "Worked example, in ms",
        "no wait helps",
        "at most",
        "in any 12 s",
    ):
        assert part in text


@every_algorithm
@pytest.mark.parametrize("columns", mark_slow([60, 80, 120], [60]))
def test_the_source_is_numbered_and_keeps_every_word(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLAIN, "COLUMNS", str(columns))
    source = teaching_source(ALGORITHMS[name]).splitlines()
    printed = get_output("explain", name).split("Source -")[1].split("Worked example, in")[0].splitlines()[2:-1]
    assert max(map(len, printed)) <= max(columns, 80)
    lines: list[str] = []
    for line in printed:
        number, text = line[:4].strip(), line[5:]
        assert number in ("", str(len(lines) + 1))
        if number:
            lines.append(text)
        else:  # the rest of a line that does not fit the terminal
            lines[-1] += f" {text}"
    assert [(indent(line), line.split()) for line in lines] == [(indent(line), line.split()) for line in source]
    fits = all(len(line) <= max(columns, 80) - 5 for line in source)
    assert (len(printed) == len(source)) == fits


def test_each_request_has_its_question_and_the_bound_its_number() -> None:
    text = " ".join(get_output("explain", "token-bucket", "--rate", "100/min", "--burst", "20").split())
    requests = build_lesson(Quota.parse("100/min", 20)).requests
    assert all(f"cost {one.cost}: {one.description}. {one.question}" in text for one in requests)
    assert "at most 2x burst - 1 in any 12 s: 39 where the quota grants 20" in text


def test_a_burst_of_one_is_requested_at_once() -> None:
    text = get_output("explain", "token-bucket", "--burst", "1")
    assert "0s, cost 1: all of a burst, as a window begins. How much" in text
    assert "the last of the burst" not in text


def test_times_are_exact() -> None:
    assert "wait 49.25s" in get_output("explain", "sliding-log", "--burst", "100")
    assert "999.999ms, cost 1: " in get_output("explain", "gcra", "--rate", "1000000/s", "--burst", "1000000")


def test_a_greedy_client_gets_the_bound_or_the_explanation_states_less() -> None:
    kinds = {name: ALGORITHMS[name] for name in BUILT_IN}
    for quota in [Quota.parse(*one) for one in (("2/s", 5), ("100/min", 20), ("7/13s", 7), ("1/day", 1))]:
        admitted = {name: count_greedy_admissions(kind.from_quota(quota), quota) for name, kind in kinds.items()}
        promises = {name: traits_of(kind).at_most or (0, 0) for name, kind in kinds.items()}
        bounds = {name: factor * quota.burst + extra for name, (factor, extra) in promises.items()}
        assert admitted == {**bounds, "leaky-bucket": quota.burst}, quota
    assert "6 where the quota grants 5; a greedy client gets 5 with requests" in " ".join(
        get_output("explain", "leaky-bucket").split()
    )
    assert "greedy" not in get_output("explain", "token-bucket")


def test_the_promises_that_are_proved_for_all_times_are_listed(toll: str) -> None:
    text = " ".join(get_output("explain", "gcra", "--prove").split())
    assert (
        "proved for all times, states and costs: invariants, no errors, fields, wait suffices, wait is tight," in text
    )
    assert "potential, token-bucket choose when" in text
    text = " ".join(get_output("explain", toll, "--prove").split())
    assert "step back; wait suffices is refuted; wait is tight is refuted;" in text
    assert text.endswith("see ratelab prove")
    assert "proved" not in get_output("explain", "gcra")


# --- several algorithms


def test_algorithms_are_compared_side_by_side_on_the_same_requests() -> None:
    text = get_output("explain", "--compare", "token-bucket", "leaky-bucket")
    assert max(map(len, text.splitlines())) == 80
    assert re.search(
        r"^at most +2x burst - 1 in any 2\.5 s: 9 +burst \+ 1 request in any 2\.5 s: 6", text, re.MULTILINE
    )
    assert text.count("leaves after 2s") == 2


@pytest.mark.slow
def test_columns_that_do_not_fit_follow_below_and_no_word_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = get_output("explain", "--compare", *BUILT_IN)
    assert max(map(len, narrow.splitlines())) == 80
    assert "…" not in narrow
    monkeypatch.setitem(PLAIN, "COLUMNS", "160")
    wide = get_output("explain", "--compare", *BUILT_IN)
    assert re.search(r"^ +" + " +".join(BUILT_IN), wide, re.MULTILINE)
    assert len(re.findall(r"^idea ", narrow, re.MULTILINE)) == 2 * len(re.findall(r"^idea ", wide, re.MULTILINE)) == 2


def test_no_printed_line_ends_in_blanks() -> None:
    for command in (["explain", "gcra"], ["explain", "--compare", "gcra", "token-bucket"], ["algorithms"]):
        assert not [line for line in get_output(*command).splitlines() if line != line.rstrip()]


def test_several_algorithms_are_explained_in_the_given_order() -> None:
    assert re.findall("^(.*) at 2/s, burst 5$", get_output("explain", "gcra", "fixed-window"), re.MULTILINE) == [
        "gcra",
        "fixed-window",
    ]


# --- third-party algorithms and errors


def test_a_third_party_algorithm_is_explained_without_advice(toll: str) -> None:
    text = get_output("explain", toll)
    assert "allowed = 5 % 2 == 1: yes" in text
    assert "requests 5" in text
    assert "choose when" not in text


def test_an_invalid_request_is_rejected_in_one_line(tmp_path: Path) -> None:
    assert "did you mean gcra?" in get_error("explain", "gcr")
    assert "toll failed: ZeroDivisionError" in get_error("explain", written(tmp_path, "% 2", "% 0"))
    assert "rate must look like" in get_error("explain", "gcra", "--rate", "fast")
