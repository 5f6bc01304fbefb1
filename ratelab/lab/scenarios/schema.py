"""Schema of scenario files: keys, types, rules and error messages."""

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


# --- values


def create_integer_parser(minimum: int, maximum: int = 10**9) -> Callable[[str], int]:
    """Create a parser of whole numbers from `minimum` to `maximum`."""
    rule = f"expected a whole number from {minimum} to {maximum}"

    def parse(value: str) -> int:
        if type(value) is not str or not value.isascii() or not value.removeprefix("-").isdecimal():
            raise InputError(f"{rule}, got {short_repr(value)}")
        if len(value) > 20 or not minimum <= int(value) <= maximum:
            raise InputError(f"{rule}, got {short_repr(value).strip(chr(39))}")
        return int(value)

    return parse


def parse_text(value: str) -> str:
    """Return text on one line; reject blank text and control characters."""
    line = " ".join(value.split()) if type(value) is str else ""
    if not line or not line.isprintable():
        raise InputError(f"expected printable text, got {short_repr(value)}")
    return line


def parse_costs(value: str | dict[str, str]) -> dict[int, float]:
    """Parse a cost, or several with their weights in a random draw."""
    parse_cost = create_integer_parser(1)
    if not isinstance(value, dict):
        return {parse_cost(value): 1.0}
    weights = {parse_cost(cost): _parse_weight(weight) for cost, weight in value.items()}
    if len(weights) < len(value):
        raise InputError(f"duplicate cost in {short_repr(value)}")
    if not sum(weights.values()):
        raise InputError(f"the weights of the costs must add up to more than 0, got {short_repr(value)}")
    return weights


def _parse_weight(value: str) -> float:
    digits = value.replace(".", "", 1) if type(value) is str and len(value) <= 30 else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise InputError(f"expected a weight such as 0.9, got {short_repr(value)}")
    return float(Fraction(value))


def check_algorithm(value: str) -> str:
    """Return the name of an installed algorithm; reject a file, since reading a scenario must not run code."""
    if type(value) is not str or ".py:" in value:
        raise InputError(f"expected the name of an algorithm, got {short_repr(value)}; give a file with --algo")
    find(value)
    return value


def check_chart(value: str) -> str:
    """Return the name of a chart."""
    if value not in CHARTS:
        raise InputError(f"expected one of {', '.join(CHARTS)}, got {short_repr(value)}")
    return value


def parse_rate(value: str) -> Quota:
    """Parse a rate; the burst of the quota is not used."""
    return Quota.parse(value)


MAX_CLIENT_COUNT = 100_000
"""The largest `count` of a client."""

Count = Annotated[int, PlainValidator(create_integer_parser(1))]
ClientCount = Annotated[int, PlainValidator(create_integer_parser(1, MAX_CLIENT_COUNT))]
Seed = Annotated[int, PlainValidator(create_integer_parser(0, 2**63 - 1))]
Text = Annotated[str, PlainValidator(parse_text)]
AlgorithmName = Annotated[str, PlainValidator(check_algorithm)]
ChartName = Annotated[str, PlainValidator(check_chart)]
Rate = Annotated[Quota, PlainValidator(parse_rate)]
Duration = Annotated[int, PlainValidator(parse_duration)]
"""Nanoseconds."""
CostWeights = Annotated[dict[int, float], PlainValidator(parse_costs)]


# --- objects


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
    """A rate that changes evenly from `start` to `end`."""

    pattern: Literal["ramp"]
    start: Rate
    finish: Rate = Field(alias="end")


class Wave(_Pattern):
    """A rate that varies around `mean` by `amplitude`, once per `cycle`."""

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
    """Requests at the listed `times`."""

    pattern: Literal["at"]
    times: Annotated[list[Duration], Field(min_length=1)]


class TraceFile(_Pattern):
    """The requests of a trace file, the first at `from`."""

    pattern: Literal["trace"]
    file: Text


DrawnPattern = Steady | Burst | Poisson | Ramp | Wave | OnOff | At
Pattern = DrawnPattern | TraceFile


class Client(_Strict):
    """A client, or `count` similar ones. Clients with the same `key` share one quota."""

    name: Text
    count: ClientCount = 1
    key: Text | None = None
    traffic: Annotated[list[Annotated[Pattern, Field(discriminator="pattern")]], Field(min_length=1)]
    cost: CostWeights = {1: 1.0}


class QuotaFields(_Strict):
    """The quota of each key."""

    rate: Rate
    burst: Count | None = None


class ScenarioFile(_Strict):
    """A scenario file."""

    name: Text
    description: Text = "(no description)"
    lesson: Text | None = None
    chart: ChartName = CHARTS[0]
    duration: Duration
    seed: Seed = 0
    quota: QuotaFields
    algorithms: Annotated[list[AlgorithmName], Field(min_length=1, max_length=100)] = list(COMPARED)
    clients: Annotated[list[Client], Field(min_length=1)]


PATTERNS: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["pattern"].annotation)[0]: model for model in get_args(Pattern)
}
"""The patterns by their names in files."""


# --- validation


def read(document: Document) -> ScenarioFile:
    """Validate a document; raise `InputError` for the first error in it."""
    try:
        return ScenarioFile.model_validate(document.value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise min((document.error(*_format_error(item)) for item in details), key=lambda error: error.line)


def _format_error(details: ErrorDetails) -> tuple[Place, str]:
    """Return the place of an error, and a message that names the rule and the remedy."""
    place = _remove_tag(details["loc"])
    context: dict[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return place, str(context["error"])
        case "missing":
            return place[:-1], f"missing key {place[-1]!r}"
        case "extra_forbidden":
            return place, f"unknown key; {_suggest(str(place[-1]), _get_keys(details['loc']))}"
        case "union_tag_not_found":
            return place, f"missing key 'pattern'; choose one of {', '.join(PATTERNS)}"
        case "union_tag_invalid":
            tag = context["tag"]
            return (*place, "pattern"), f"unknown pattern {short_repr(tag)}; {_suggest(tag, list(PATTERNS))}"
        case "too_long":
            return place, f"expected at most {context['max_length']}, got more"
        case "too_short":
            return place, "expected at least one, got an empty list"
        case "list_type":
            return place, f"expected a list, got {short_repr(details['input'])}"
        case _:
            return place, f"expected keys and values, got {short_repr(details['input'])}"


def _remove_tag(loc: Place) -> Place:
    """Return the place in the file: pydantic adds the name of the pattern after the index of the traffic."""
    return loc[:4] + loc[5:] if loc[2:3] == ("traffic",) else loc


def _get_keys(loc: Place) -> list[str]:
    """Return the valid keys of the object that has an unknown key at `loc`."""
    model: type[BaseModel]
    if len(loc) == 1:
        model = ScenarioFile
    elif len(loc) > 4:
        model = PATTERNS[str(loc[4])]
    else:
        model = QuotaFields if loc[0] == "quota" else Client
    return [field.alias or name for name, field in model.model_fields.items()]


def _suggest(name: str, choices: list[str]) -> str:
    near = get_close_matches(name, choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(choices)}"
