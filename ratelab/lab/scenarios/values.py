"""The single values in a scenario file: each read from its text, or refused in words that tell the rule."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from ratelab.algorithms import find
from ratelab.errors import InputError, shown
from ratelab.lab import CHARTS
from ratelab.quota import Quota


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Return a reader of whole numbers from `least` to `most`."""
    rule = f"expected a whole number from {least} to {most}"

    def read(value: str) -> int:
        if type(value) is not str or not value.isascii() or not value.removeprefix("-").isdecimal():
            raise InputError(f"{rule}, got {shown(value)}")
        if len(value) > 20 or not least <= int(value) <= most:
            raise InputError(f"{rule}, got {shown(value).strip(chr(39))}")
        return int(value)

    return read


def plain_text(value: str) -> str:
    """Read text that is not blank, as one line."""
    line = " ".join(value.split()) if type(value) is str else ""
    if not line or not line.isprintable():
        raise InputError(f"expected some plain text, got {shown(value)}")
    return line


def cost_weights(value: str | dict[str, str]) -> dict[int, float]:
    """Read a cost, or costs with the weights they are drawn with."""
    read_cost = whole(1)
    if not isinstance(value, dict):
        return {read_cost(value): 1.0}
    weights = {read_cost(cost): _weight(weight) for cost, weight in value.items()}
    if len(weights) < len(value):
        raise InputError(f"a cost stands here twice, got {shown(value)}")
    if not sum(weights.values()):
        raise InputError(f"the weights of the costs must add up to more than 0, got {shown(value)}")
    return weights


def algorithm_name(value: str) -> str:
    """Read the name of an installed algorithm; not a file's, as reading a scenario must run nothing."""
    if type(value) is not str or ".py:" in value:
        raise InputError(f"expected the name of an algorithm, got {shown(value)}; give a file with --algo")
    find(value)
    return value


def chart_name(value: str) -> str:
    """Read the name of a chart."""
    if value not in CHARTS:
        raise InputError(f"expected one of {', '.join(CHARTS)}, got {shown(value)}")
    return value


def rate(value: str) -> Quota:
    """Read a rate, whose burst does not matter."""
    return Quota.parse(value)


def _weight(value: str) -> float:
    digits = value.replace(".", "", 1) if type(value) is str and len(value) <= 30 else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise InputError(f"expected a weight such as 0.9, got {shown(value)}")
    return float(Fraction(value))
