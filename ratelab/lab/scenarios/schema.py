"""What a scenario file may say: its keys, their types and the rules each must keep."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from ratelab.algorithms import COMPARED, find
from ratelab.errors import InputError, short_repr
from ratelab.lab import CHARTS
from ratelab.lab.scenarios.yaml_document import Document, Place
from ratelab.quota import Quota, parse_duration

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    """Return a reader of whole numbers from `least` to `most`."""
    rule = f"expected a whole number from {least} to {most}"

    def read(value: str) -> int:
        if type(value) is not str or not value.isascii() or not value.removeprefix("-").isdecimal():
            raise InputError(f"{rule}, got {short_repr(value)}")
        if len(value) > 20 or not least <= int(value) <= most:
            raise InputError(f"{rule}, got {short_repr(value).strip(chr(39))}")
        return int(value)

    return read


def plain_text(value: str) -> str:
    """Read text that is not blank, as one line."""
    line = " ".join(value.split()) if type(value) is str else ""
    if not line or not line.isprintable():
        raise InputError(f"expected some plain text, got {short_repr(value)}")
    return line


def cost_weights(value: str | dict[str, str]) -> dict[int, float]:
    """Read a cost, or costs with the weights they are drawn with."""
    read_cost = whole(1)
    if not isinstance(value, dict):
        return {read_cost(value): 1.0}
    weights = {read_cost(cost): _weight(weight) for cost, weight in value.items()}
    if len(weights) < len(value):
        raise InputError(f"a cost stands here twice, got {short_repr(value)}")
    if not sum(weights.values()):
        raise InputError(f"the weights of the costs must add up to more than 0, got {short_repr(value)}")
    return weights


def algorithm_name(value: str) -> str:
    """Read the name of an installed algorithm; not a file's, as reading a scenario must run nothing."""
    if type(value) is not str or ".py:" in value:
        raise InputError(f"expected the name of an algorithm, got {short_repr(value)}; give a file with --algo")
    find(value)
    return value


def chart_name(value: str) -> str:
    """Read the name of a chart."""
    if value not in CHARTS:
        raise InputError(f"expected one of {', '.join(CHARTS)}, got {short_repr(value)}")
    return value


def rate(value: str) -> Quota:
    """Read a rate, whose burst does not matter."""
    return Quota.parse(value)


def _weight(value: str) -> float:
    digits = value.replace(".", "", 1) if type(value) is str and len(value) <= 30 else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise InputError(f"expected a weight such as 0.9, got {short_repr(value)}")
    return float(Fraction(value))


MAX_CLIENT_COUNT = 100_000
"""The largest `count` of a client."""


Count = Annotated[int, PlainValidator(whole(1))]
Text = Annotated[str, PlainValidator(plain_text)]
Algorithm = Annotated[str, PlainValidator(algorithm_name)]
Chart = Annotated[str, PlainValidator(chart_name)]
Rate = Annotated[Quota, PlainValidator(rate)]
Duration = Annotated[int, PlainValidator(parse_duration)]
"""Nanoseconds."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Pattern(_Strict):
    begin: Duration = Field(0, alias="from")
    end: Duration | None = Field(None, alias="to")


class Steady(_Pattern):
    """One request every `1 / rate`."""

    pattern: Literal["steady"]
    rate: Rate


class Burst(_Pattern):
    """`size` requests from `at` on, `spacing` apart."""

    pattern: Literal["burst"]
    at: Duration
    size: Count
    spacing: Duration = 0


class Poisson(_Pattern):
    """Independent requests, `rate` on average."""

    pattern: Literal["poisson"]
    rate: Rate


class Ramp(_Pattern):
    """A rate that goes evenly from `start` to `end`."""

    pattern: Literal["ramp"]
    start: Rate
    finish: Rate = Field(alias="end")


class Wave(_Pattern):
    """A rate that swings about `mean` by `amplitude`, once a `cycle`."""

    pattern: Literal["wave"]
    mean: Rate
    amplitude: Rate
    cycle: Duration


class OnOff(_Pattern):
    """`rate` while on, nothing while off."""

    pattern: Literal["on-off"]
    rate: Rate
    on: Duration
    off: Duration


class At(_Pattern):
    """Requests at the `times` given."""

    pattern: Literal["at"]
    times: Annotated[list[Duration], Field(min_length=1)]


class TraceFile(_Pattern):
    """The requests of a trace file, the first of them at `from`."""

    pattern: Literal["trace"]
    file: Text


DrawnPattern = Steady | Burst | Poisson | Ramp | Wave | OnOff | At
Pattern = DrawnPattern | TraceFile


class Client(_Strict):
    """One client, or `count` alike; those with the same `key` share one quota."""

    name: Text
    count: Annotated[int, PlainValidator(whole(1, MAX_CLIENT_COUNT))] = 1
    key: Text | None = None
    traffic: Annotated[list[Annotated[Pattern, Field(discriminator="pattern")]], Field(min_length=1)]
    cost: Annotated[dict[int, float], PlainValidator(cost_weights)] = {1: 1.0}


class QuotaText(_Strict):
    """What every key is granted."""

    rate: Rate
    burst: Count | None = None


class ScenarioFile(_Strict):
    """Everything a scenario file says."""

    name: Text
    description: Text = "(no description)"
    lesson: Text | None = None
    chart: Chart = CHARTS[0]
    duration: Duration
    seed: Annotated[int, PlainValidator(whole(0, 2**63 - 1))] = 0
    quota: QuotaText
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=100)] = list(COMPARED)
    clients: Annotated[list[Client], Field(min_length=1)]


PATTERNS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["pattern"].annotation)[0]: model for model in get_args(Pattern)
}
"""The patterns by the names that files use."""


def read(document: Document) -> ScenarioFile:
    """Check `document` against the schema; raise `InputError` for the fault that stands first in it."""
    try:
        return ScenarioFile.model_validate(document.value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise min((document.error(*_fault(fault)) for fault in details), key=lambda error: error.line)


def _fault(details: ErrorDetails) -> tuple[Place, str]:
    """Return where a fault stands and what it is, in words for the person who wrote the file."""
    place = _without_tag(details["loc"])
    context: dict[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return place, str(context["error"])
        case "missing":
            return place[:-1], f"the key {place[-1]!r} is missing"
        case "extra_forbidden":
            return place, f"unknown key; {_nearest(str(place[-1]), _keys(details['loc']))}"
        case "union_tag_not_found":
            return place, f"the key 'pattern' is missing; choose one of {', '.join(PATTERNS)}"
        case "union_tag_invalid":
            tag = context["tag"]
            return (*place, "pattern"), f"unknown pattern {short_repr(tag)}; {_nearest(tag, list(PATTERNS))}"
        case "too_long":
            return place, f"expected at most {context['max_length']}, got more"
        case "too_short":
            return place, "expected at least one, got an empty list"
        case "list_type":
            return place, f"expected a list, got {short_repr(details['input'])}"
        case _:
            return place, f"expected keys and values, got {short_repr(details['input'])}"


def _without_tag(loc: Place) -> Place:
    """Return the place in the file: pydantic also tells which pattern a piece of traffic was read as."""
    return loc[:4] + loc[5:] if loc[2:3] == ("traffic",) else loc


def _keys(loc: Place) -> list[str]:
    """Return the keys that are allowed beside the one at `loc`."""
    model: type[BaseModel]
    if len(loc) == 1:
        model = ScenarioFile
    elif len(loc) > 4:
        model = PATTERNS[str(loc[4])]
    else:
        model = QuotaText if loc[0] == "quota" else Client
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(name: str, choices: list[str]) -> str:
    near = get_close_matches(name, choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(choices)}"
