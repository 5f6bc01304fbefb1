"""What a scenario file may say: its keys, their types and the rules each must keep."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from ratelab.algorithms import COMPARED, find
from ratelab.errors import InputError
from ratelab.lab.document import Document, Place
from ratelab.quota import Quota, parse_duration, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_CLIENTS = 100_000
"""The largest `count` of a client."""


def _whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    def read(text: str) -> int:
        if type(text) is not str or not text.isascii() or not text.removeprefix("-").isdecimal():
            raise InputError(f"expected a whole number from {least} to {most}, got {shown(text)}")
        if len(text) > 20 or not least <= int(text) <= most:
            raise InputError(f"expected a whole number from {least} to {most}, got {shown(text)[1:-1]}")
        return int(text)

    return read


def _text(value: str) -> str:
    if type(value) is not str or not value.strip() or not value.isprintable():
        raise InputError(f"expected some plain text, got {shown(value)}")
    return value


def _costs(value: str | dict[str, str]) -> dict[int, float]:
    """Read a cost, or costs with the weights they are drawn with."""
    if not isinstance(value, dict):
        return {_whole(1)(value): 1.0}
    costs = {_whole(1)(cost): _weight(weight) for cost, weight in value.items()}
    if not sum(costs.values()):
        raise InputError(f"the weights of the costs must add up to more than 0, got {shown(value)}")
    return costs


def _weight(text: str) -> float:
    if type(text) is not str or len(text) > 30 or not text.isascii() or not text.replace(".", "", 1).isdecimal():
        raise InputError(f"expected a weight such as 0.9, got {shown(text)}")
    return float(Fraction(text))


def _algorithm(name: str) -> str:
    """Refuse a name that is not installed; a scenario may not name a file, as reading it must run nothing."""
    if type(name) is not str or ".py:" in name:
        raise InputError(f"expected the name of an algorithm, got {shown(name)}; give a file with --algo")
    find(name)
    return name


def _rate(text: str) -> Quota:
    return Quota.parse(text)


Count = Annotated[int, PlainValidator(_whole(1))]
Text = Annotated[str, PlainValidator(_text)]
Rate = Annotated[Quota, PlainValidator(_rate)]
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
    count: Annotated[int, PlainValidator(_whole(1, MOST_CLIENTS))] = 1
    key: Text | None = None
    traffic: Annotated[list[Annotated[Pattern, Field(discriminator="pattern")]], Field(min_length=1)]
    cost: Annotated[dict[int, float], PlainValidator(_costs)] = {1: 1.0}


class QuotaText(_Strict):
    """What every key is granted."""

    rate: Rate
    burst: Count | None = None


class ScenarioFile(_Strict):
    """Everything a scenario file says."""

    name: Text
    description: Text = "(no description)"
    duration: Duration
    seed: Annotated[int, PlainValidator(_whole(0, 2**63 - 1))] = 0
    quota: QuotaText
    algorithms: Annotated[list[Annotated[str, PlainValidator(_algorithm)]], Field(min_length=1)] = list(COMPARED)
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
    raise min((document.error(*_fault(document, fault)) for fault in details), key=lambda error: error.line)


def _fault(document: Document, details: ErrorDetails) -> tuple[Place, str]:
    """Return where a fault stands and what it is, in words for the person who wrote the file."""
    place = document.place(details["loc"])
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
            return (*place, "pattern"), f"unknown pattern {shown(tag)}; {_nearest(tag, list(PATTERNS))}"
        case "too_short":
            return place, "expected at least one, got an empty list"
        case "list_type":
            return place, f"expected a list, got {shown(details['input'])}"
        case _:
            return place, f"expected keys and values, got {shown(details['input'])}"


def _keys(loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are allowed beside the one at `loc`."""
    tag = next((str(step) for step in loc if step in PATTERNS), None)
    sections: dict[str, type[BaseModel]] = {"clients": Client, "quota": QuotaText}
    model = ScenarioFile if len(loc) == 1 else PATTERNS[tag] if tag else sections[str(loc[0])]
    return [field.alias or name for name, field in model.model_fields.items()]


def _nearest(name: str, choices: list[str]) -> str:
    near = get_close_matches(name, choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(choices)}"
