"""JSON lines, and the named fields of records in JSON, CSV and Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from ratelab.errors import short_repr
from ratelab.lab.traces.batches import LineError, LineParser, ParsedRequest, RepeatedError
from ratelab.lab.traces.files import make_printable
from ratelab.lab.traces.timestamps import parse_decimal, parse_time
from ratelab.quota import LARGEST

if TYPE_CHECKING:
    from ratelab.lab.traces.formats import TraceOptions

DEFAULT_CLIENT_FIELDS = ("ip", "client_ip", "clientip", "remote_addr", "remote_ip", "client")
"""Fields that may identify the client if the key is `ip`."""

DEFAULT_TIME_FIELDS = (
    "time", "timestamp", "ts", "@timestamp", "time_iso8601", "time_local", "at_ns", "date", "datetime", "msec",
)  # fmt: skip
"""Fields that may hold the time if none is named; `at_ns` is in nanoseconds."""

# Numbers stay text, so that they are parsed exactly and once, whatever the format.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


@dataclass(frozen=True)
class FieldNames:
    """The fields of a record that hold its client, time and cost: the first name of each that the record has."""

    clients: Sequence[str]
    times: Sequence[str]
    cost: str | None
    """If None, each request costs 1."""
    unit: int
    """Nanoseconds of one unit, for times that are numbers, except in `at_ns`."""

    def unit_of(self, time_field: str) -> int:
        """Return the nanoseconds of one unit in this time field."""
        return 1 if time_field == "at_ns" else self.unit


def is_json_object(line: str, _options: TraceOptions) -> bool:
    """Return whether a line looks like a JSON object."""
    return line.lstrip().startswith("{")


def get_json_fields(_first_line: str, options: TraceOptions) -> FieldNames:
    """Return the fields to read from each object."""
    return options.fields


def create_json_parser(_first_line: str, options: TraceOptions) -> LineParser:
    """Create the parser of JSON lines."""
    return create_object_parser(options.fields)


def create_object_parser(fields: FieldNames) -> LineParser:
    """Create the parser of lines with one JSON object each; the name `a.b` also finds a field `b` within `a`."""
    check_repeated = create_repeat_check()

    def parse(line: str) -> ParsedRequest:
        record = _parse_object(line)
        time_field, time = _find_field(record, fields.times, "time")
        if time_field == "at_ns":
            check_repeated(record.get("algorithm"))
        _, client = _find_field(record, fields.clients, "key")
        cost = _find_field(record, (fields.cost,), "cost")[1] if fields.cost else "1"
        return parse_values(client, time, fields.unit_of(time_field), cost)

    return parse


def create_repeat_check() -> Callable[[object], None]:
    """Create a check that accepts only the first algorithm of an `--events` file, which repeats requests for each."""
    first: list[object] = []

    def check(algorithm: object) -> None:
        first[:] = first or [algorithm]
        if algorithm != first[0]:
            raise RepeatedError(f"the same request, decided by another algorithm, {short_repr(algorithm)}")

    return check


def _parse_object(line: str) -> dict[str, object]:
    """Parse a JSON object."""
    try:
        record = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise LineError(f"invalid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise LineError("invalid JSON (nested too deeply)") from None
    if not isinstance(record, dict):
        raise LineError("it must be a JSON object")
    return record


def _find_field(record: dict[str, object], names: Sequence[str], option: str) -> tuple[str, object]:
    """Return the first of these names that has a value, and the value."""
    for name in names:
        value = record.get(name)
        if value is None and "." in name:
            value = _get_nested(record, name)
        if value is not None:
            return name, value
    raise LineError(f"it has {format_missing(names, record)}: name the right one with --{option}")


def _get_nested(record: object, name: str) -> object:
    """Look up a dotted name."""
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def format_missing(names: Sequence[str], present: Iterable[str]) -> str:
    """Format which fields are missing and which are present, the former cut to three and the latter to a dozen."""
    missing = names[0] if len(names) == 1 else f"{', '.join(names[:3])} or similar"
    listed = ", ".join(islice(present, 12))[:200]
    return make_printable(f"no field {missing}{', only ' if listed else ''}{listed}")


def parse_values(client: object, time: object, unit: int, cost: object) -> ParsedRequest:
    """Parse the values of a record's three fields; raise `LineError` for an invalid one."""
    name = _strip_text("client", client)
    if not name:
        raise LineError("client must not be empty")
    return name, parse_time(_strip_text("time", time), unit), _parse_cost(_strip_text("cost", cost))


def _strip_text(field: str, value: object) -> str:
    """Return a value without blanks around it; reject objects, lists, booleans and null."""
    if not isinstance(value, str):
        raise LineError(f"{field} must be a number or text, got {short_repr(value)}")
    return value.strip()


@lru_cache(maxsize=256)
def _parse_cost(text: str) -> int:
    """Parse a cost. Cached, since few costs are different."""
    number = parse_decimal(text)
    if number is None or not 1 <= number <= LARGEST or number % 1:
        raise LineError(f"cost must be a whole number from 1 to 2**62 - 1, got {short_repr(text)}")
    return int(number)
