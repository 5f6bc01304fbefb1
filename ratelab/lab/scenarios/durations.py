"""Drawn durations, shares and factors in scenario files."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated

from pydantic import PlainValidator

from ratelab.documents import Value, create_integer_parser
from ratelab.errors import InputError, short_repr
from ratelab.lab.closed_loop.behavior import Delay
from ratelab.lab.scenarios.schema import parse_weight
from ratelab.quota import parse_duration

MAX_VARIATION = 10

_FORMS = (
    "a duration such as 50ms, {exponential: 50ms}, {normal: 50ms, deviation: 10ms}, {mean: 50ms, cv: 0.5} "
    "or {table: {10ms: 0.9, 200ms: 0.1}}"
)


def parse_delay(value: Value) -> Delay:
    """Parse a duration that is constant or drawn at random."""
    if isinstance(value, str):
        return Delay(parse_duration(value))
    if isinstance(value, dict):
        match sorted(value):
            case ["exponential"]:
                return Delay(parse_positive(value["exponential"]), "exponential")
            case ["deviation", "normal"]:
                return Delay(parse_positive(value["normal"]), "normal", parse_duration(str(value["deviation"])))
            case ["cv", "mean"]:
                return _spread(parse_positive(value["mean"]), parse_factor(0, MAX_VARIATION)(value["cv"]))
            case ["table"]:
                return _parse_table(value["table"])
    raise InputError(f"expected {_FORMS}, got {short_repr(value)}")


def _spread(mean: int, variation: Fraction) -> Delay:
    """Return a duration of a mean and a coefficient of variation."""
    return Delay(mean, "spread", int(mean * variation)) if variation else Delay(mean)


def _parse_table(value: Value) -> Delay:
    if not isinstance(value, dict) or not value:
        raise InputError(f"expected durations with weights, such as {{10ms: 0.9, 200ms: 0.1}}, got {short_repr(value)}")
    weights = {parse_duration(duration): parse_weight(str(weight)) for duration, weight in value.items()}
    total = sum(weights.values())
    if len(weights) < len(value):
        raise InputError(f"duplicate duration in {short_repr(value)}: remove one")
    if not total:
        raise InputError(f"the weights of the durations must add up to more than 0, got {short_repr(value)}: raise one")
    mean = sum(Fraction(weight) * duration for duration, weight in weights.items()) / Fraction(total)
    return Delay(int(mean), "table", values=tuple(weights), weights=tuple(weights.values()))


def parse_positive(value: Value) -> int:
    """Parse a duration above 0."""
    duration = parse_duration(value)  # type: ignore[arg-type]  # rejects other values itself
    if not duration:
        raise InputError(f"a duration must be above 0s, got {short_repr(value)}")
    return duration


def parse_factor(minimum: int, maximum: int) -> Callable[[Value], Fraction]:
    """Create a parser of decimal numbers from `minimum` to `maximum`."""

    def parse(value: Value) -> Fraction:
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            raise InputError(f"expected a number such as 2 or 1.5, got {short_repr(value)}")
        if not minimum <= Fraction(value) <= maximum:
            raise InputError(f"must be a number from {minimum} to {maximum}, got {value}")
        return Fraction(value)

    return parse


def parse_share(maximum: int) -> Callable[[Value], Fraction]:
    """Create a parser of percentages above 0 %, up to `maximum`."""

    def parse(value: Value) -> Fraction:
        match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?) ?%", value) if isinstance(value, str) else None
        if not match:
            raise InputError(f"expected a percentage such as 10%, got {short_repr(value)}")
        if not 0 < Fraction(match[1]) <= maximum:
            raise InputError(f"must be above 0% and at most {maximum}%, got {value}")
        return Fraction(match[1]) / 100

    return parse


def parse_limit(minimum: int, maximum: int = 10**9) -> Callable[[Value], int | None]:
    """Create a parser of whole numbers from `minimum` to `maximum`, or `unlimited`."""
    parse_whole = create_integer_parser(minimum, maximum)

    def parse(value: Value) -> int | None:
        try:
            return None if value == "unlimited" else parse_whole(value)  # type: ignore[arg-type]  # checks the type
        except InputError as error:
            raise InputError(str(error).replace(", got", ", or unlimited, got", 1)) from None

    return parse


DrawnDuration = Annotated[Delay, PlainValidator(parse_delay)]
LongDuration = Annotated[int, PlainValidator(parse_positive)]
"""Nanoseconds, above 0."""
