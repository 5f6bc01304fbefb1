"""Schema of scenario files: keys, types and rules."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from ratelab.algorithms import COMPARED
from ratelab.documents import (
    AlgorithmName,
    Count,
    Duration,
    Example,
    Rate,
    Strict,
    Text,
    create_choice_parser,
    create_integer_parser,
    tagged_models,
)
from ratelab.errors import InputError, short_repr
from ratelab.lab import CHARTS
from ratelab.lab.scenarios.expectations import MAX_EXPECTATIONS, Expectation, parse_expectation

# --- values


def parse_costs(value: str | dict[str, str]) -> dict[int, float]:
    """Parse a cost, or several with their weights in a random draw."""
    parse_cost = create_integer_parser(1)
    if not isinstance(value, dict):
        return {parse_cost(value): 1.0}
    weights = {parse_cost(cost): parse_weight(weight) for cost, weight in value.items()}
    if len(weights) < len(value):
        raise InputError(f"duplicate cost in {short_repr(value)}: add up its weights")
    if not sum(weights.values()):
        raise InputError(f"the weights of the costs must add up to more than 0, got {short_repr(value)}: raise one")
    return weights


def parse_weight(value: str) -> float:
    """Parse the weight of a value in a random draw."""
    digits = value.replace(".", "", 1) if type(value) is str and len(value) <= 30 else ""
    if not (digits.isascii() and digits.isdecimal()):
        raise InputError(f"expected a weight such as 0.9, got {short_repr(value)}")
    return float(Fraction(value))


MAX_CLIENT_COUNT = 100_000
"""The largest `count` of a client."""

ClientCount = Annotated[int, PlainValidator(create_integer_parser(1, MAX_CLIENT_COUNT))]
Seed = Annotated[int, PlainValidator(create_integer_parser(0, 2**63 - 1))]
ChartName = Annotated[str, PlainValidator(create_choice_parser(CHARTS))]
CostWeights = Annotated[dict[int, float], PlainValidator(parse_costs)]
Expectations = Annotated[
    list[Annotated[Expectation, PlainValidator(parse_expectation)]], Field(min_length=1, max_length=MAX_EXPECTATIONS)
]


A_PATTERN = "{pattern: steady, rate: 1/s}"
A_CLIENT = Example(f"[{{name: alice, traffic: [{A_PATTERN}]}}]")

# --- objects


class _Pattern(Strict):
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
    times: Annotated[list[Duration], Field(min_length=1), Example("[1s, 2s]")]


class TraceFile(_Pattern):
    """The requests of a trace file, the first at `from`."""

    pattern: Literal["trace"]
    file: Annotated[Text, Example("access.log")]


DrawnPattern = Steady | Burst | Poisson | Ramp | Wave | OnOff | At
Pattern = DrawnPattern | TraceFile
Patterns = Annotated[list[Annotated[Pattern, Field(discriminator="pattern")]], Field(min_length=1)]


class Client(Strict):
    """A client, or `count` similar ones. Clients with the same `key` share one quota."""

    name: Text
    count: ClientCount = 1
    key: Text | None = None
    traffic: Annotated[Patterns, Example(f"[{A_PATTERN}]")]
    cost: CostWeights = Field({1: 1.0})

    def describe_behavior(self) -> str:
        """Return in words how the client reacts to its answers; an open loop ignores them."""
        return ""


class QuotaFields(Strict):
    """The quota of each key."""

    rate: Rate
    burst: Count | None = None


class ScenarioFields(Strict):
    """Keys of every scenario file, to which each kind of file adds its `chart` and its `clients`."""

    name: Text
    description: Text = "(no description)"
    lesson: Text | None = None
    duration: Duration
    seed: Seed = 0


class ScenarioFile(ScenarioFields):
    """A scenario file with one quota and several algorithms."""

    chart: ChartName = CHARTS[0]
    quota: Annotated[QuotaFields, Example("{rate: 2/s, burst: 5}")]
    algorithms: list[AlgorithmName] = Field(list(COMPARED), min_length=1, max_length=100)
    expect: Expectations = Field([])
    clients: Annotated[list[Client], Field(min_length=1), A_CLIENT]


PATTERNS = tagged_models(Pattern)
"""The patterns by their names in files."""
