"""Expectations of a scenario: figures that must be within limits, as continuous integration checks them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from ratelab.documents import Document, Value, suggest
from ratelab.errors import InputError, short_repr
from ratelab.lab.metrics import Figure, Result, list_figures
from ratelab.quota import NS_PER_S, Quota, parse_duration

if TYPE_CHECKING:
    from ratelab.lab.closed_loop.figures import LoopResult
    from ratelab.lab.scenarios.scenario import Scenario

EXPECT_KEY = "expect"

MAX_EXPECTATIONS = 100

EXAMPLE_EXPECTATION = "goodput >= 90%"

OPERATORS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}

RECOVERY = "recovery_time"


@dataclass(frozen=True)
class Expectation:
    """A limit for a figure."""

    text: str
    """As the file has it."""
    figure: str
    sign: str
    limit: Fraction
    algorithm: str | None = None
    """The algorithm that it is about; None for all of them."""
    line: int = 0
    """The line of the file."""
    path: str = ""
    """The file."""

    @property
    def is_percentage(self) -> bool:
        """Whether the limit is one: counts are then divided by those that they are part of."""
        return self.text.endswith("%")


class Check(NamedTuple):
    """An expectation, and the value of one row of a comparison."""

    expectation: Expectation
    label: str
    """The name of the row."""
    value: float | None
    """In the unit of the figure, or a ratio if the limit is a percentage; None if the figure has no value."""
    passed: bool


def parse_expectation(value: Value) -> Expectation:
    """Parse a comparison, or a comparison with the algorithm that it is about as its key."""
    if isinstance(value, dict) and len(value) == 1:
        ((algorithm, text),) = value.items()
        return replace(_parse_comparison(text), algorithm=algorithm)
    return _parse_comparison(value)


def _parse_comparison(text: Value) -> Expectation:
    if not isinstance(text, str):
        raise InputError(f"expected a comparison such as {EXAMPLE_EXPECTATION}, got {short_repr(text)}")
    words = " ".join(text.split())
    if words in ("metastable", "not metastable"):
        return Expectation(words, "metastable", "=", Fraction(words == "metastable"))
    if words.startswith("recovers within "):
        return Expectation(words, RECOVERY, "<=", _parse_seconds(words.removeprefix("recovers within ")))
    match = re.fullmatch(r"(\w+) ?(<=|>=|==|<|>|=) ?(.+)", words)
    if match is None:
        raise InputError(f"expected a comparison such as {EXAMPLE_EXPECTATION}, got {short_repr(text)}")
    name, sign, limit = match.groups()
    figures = list_all_figures()
    numeric = [each for each, figure in figures.items() if figure.unit != "flag"]
    if name not in numeric:
        remedy = "write metastable, or not metastable" if name in figures else suggest(name, numeric)
        raise InputError(f"unknown figure {short_repr(name)}; {remedy}")
    words = f"{name} {sign.replace('==', '=')} {limit}"
    if name == "goodput" and limit.endswith("%"):
        name = "goodput_ratio"
    return replace(_parse_limit(name, figures[name], limit), text=words, sign=sign.replace("==", "="))


def _parse_limit(name: str, figure: Figure, text: str) -> Expectation:
    """Return an expectation with the limit of a figure, in its unit."""
    if text.endswith("%"):
        if figure.unit not in ("percent", "ratio") and not figure.part_of:
            raise InputError(f"{name} is not a share: expected {_NOUNS[figure.unit]}, got {short_repr(text)}")
        return Expectation("", name, "", _parse_number(text[:-1], "a percentage such as 90%") / 100)
    if figure.unit == "percent":
        raise InputError(f"expected a percentage such as 90%, got {short_repr(text)}")
    if figure.unit == "seconds":
        return Expectation("", name, "", _parse_seconds(text))
    if figure.unit == "rate" and "/" in text:
        rate = Quota.parse(text)
        return Expectation("", name, "", Fraction(rate.limit * NS_PER_S, rate.period))
    return Expectation("", name, "", _parse_number(text, _NOUNS[figure.unit]))


_NOUNS = {"count": "a number such as 10", "ratio": "a number such as 1.1", "rate": "a rate such as 40/s"} | {
    "seconds": "a duration such as 2s"
}
"""The form of a limit, by the unit of its figure."""


def _parse_number(text: str, rule: str) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text.strip()):
        raise InputError(f"expected {rule}, got {short_repr(text)}")
    return Fraction(text.strip())


def _parse_seconds(text: str) -> Fraction:
    return Fraction(parse_duration(text), NS_PER_S)


# --- figures


def list_all_figures() -> dict[str, Figure]:
    """Return the figures of scenarios of both kinds, but names."""
    return {**list_open_figures(), **list_loop_figures()}


def list_open_figures() -> dict[str, Figure]:
    """Return the figures of clients that do not react to their answers."""
    return list_figures(Result)


def list_loop_figures() -> dict[str, Figure]:
    """Return the figures of clients that react to their answers."""
    from ratelab.lab.closed_loop.figures import LoopResult  # slow, and only expectations need it

    return list_figures(LoopResult)


def place_expectations(document: Document, expectations: Sequence[Expectation]) -> tuple[Expectation, ...]:
    """Return expectations with their lines in the file."""
    lines = [document.lines.get((EXPECT_KEY, number), 0) for number in range(len(expectations))]
    pairs = zip(expectations, lines, strict=True)
    return tuple(replace(each, line=line, path=document.path) for each, line in pairs)


def check_expectations(
    document: Document,
    expectations: Sequence[Expectation],
    algorithms: Sequence[str],
    is_loop: bool,
    has_faults: bool,
) -> None:
    """Raise `InputError` for an expectation that the runs of a scenario cannot meet or fail."""
    for number, each in enumerate(expectations):
        for problem in _find_problems(each, algorithms, is_loop, has_faults):
            raise document.error((EXPECT_KEY, number), problem)


def _find_problems(each: Expectation, algorithms: Sequence[str], is_loop: bool, has_faults: bool) -> Iterator[str]:
    figures = list_loop_figures() if is_loop else list_open_figures()
    if each.figure not in figures:
        kind = "react" if is_loop else "do not react"
        yield f"{each.figure} is not a figure of clients that {kind} to answers; {suggest(each.figure, figures)}"
    if each.algorithm is not None and each.algorithm not in algorithms:
        hint = suggest(each.algorithm, algorithms) if algorithms else "without a quota there is none: remove the name"
        yield f"unknown algorithm {short_repr(each.algorithm)}; {hint}"
    if each.figure in (RECOVERY, "metastable") and not has_faults:
        yield "there is no fault to recover from: add faults, or remove it"
    if each.figure in ("peak_in_window", "overshoot") and not algorithms:
        yield f"without a quota there is no {each.figure}: add quota, or remove it"


# --- values


def check_results(results: Sequence[Result | LoopResult], variants: Sequence[Scenario]) -> Iterator[Check]:
    """Yield the expectations of each variant with the value of each row that they are about.

    Raises `InputError` for an expectation about an algorithm that did not run.
    """
    for scenario in variants:
        rows = [each for each in results if len(variants) == 1 or getattr(each, "variant", None) == scenario.variant]
        for expectation in scenario.expectations:
            checked = [row for row in rows if expectation.algorithm in (None, row.algorithm)]
            if not checked:
                raise InputError(
                    f"{expectation.path}:{expectation.line}: expect names {expectation.algorithm}, which does not run: "
                    f"add --algo {expectation.algorithm}"
                )
            yield from (_check_row(expectation, row) for row in checked)


def _check_row(expectation: Expectation, row: Result | LoopResult) -> Check:
    """Compare the figure of a row; one without a value does not meet an expectation."""
    value = getattr(row, expectation.figure)
    whole = list_figures(type(row))[expectation.figure].part_of
    if value is not None and whole and expectation.is_percentage:
        value = round(value / max(1, getattr(row, whole)), 6)
    passed = value is not None and OPERATORS[expectation.sign](Fraction(str(float(value))), expectation.limit)
    return Check(expectation, getattr(row, "label", row.algorithm), value, passed)
