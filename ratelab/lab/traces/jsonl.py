"""Records with named fields, and the JSON objects, one a line, that are such."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from ratelab.errors import short_repr
from ratelab.lab.traces.access_log import Event, ReadLine
from ratelab.lab.traces.files import LineError, RepeatedError, printable
from ratelab.lab.traces.timestamps import read_instant, read_number
from ratelab.quota import LARGEST

CLIENTS = ("ip", "client_ip", "clientip", "remote_addr", "remote_ip", "client")
"""Fields that may be the client where the key is `ip`."""

TIMES = (
    "time", "timestamp", "ts", "@timestamp", "time_iso8601", "time_local", "at_ns", "date", "datetime", "msec",
)  # fmt: skip
"""Fields that may be the time where none is named; `at_ns` counts nanoseconds."""

# Numbers stay text, so that they are read exactly, once, wherever they come from.
_JSON = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


@dataclass(frozen=True)
class FieldNames:
    """Where a record says who asks, when and at what cost: the first of these names that it has."""

    clients: Sequence[str]
    times: Sequence[str]
    cost: str | None
    """Without one, each request costs 1."""
    unit: int
    """Nanoseconds that a time's number counts, except in `at_ns`."""

    def unit_of(self, time: str) -> int:
        """Say how many nanoseconds a number in this time field counts."""
        return 1 if time == "at_ns" else self.unit


def json_reader(fields: FieldNames) -> ReadLine:
    """Make the reader of JSON objects, one a line; the name `a.b` also finds a field `b` within `a`."""
    same = one_algorithm()

    def read(line: str) -> Event:
        record = _object(line)
        time, when = _first(record, fields.times, "time")
        if time == "at_ns":
            same(record.get("algorithm"))
        _, client = _first(record, fields.clients, "key")
        cost = _first(record, (fields.cost,), "cost")[1] if fields.cost else "1"
        return event(client, when, fields.unit_of(time), cost)

    return read


def one_algorithm() -> Callable[[object], None]:
    """Make a check that keeps to the algorithm met first: `--events` writes each request once for every one."""
    first: list[object] = []

    def check(algorithm: object) -> None:
        first[:] = first or [algorithm]
        if algorithm != first[0]:
            raise RepeatedError(f"the same request as decided by another algorithm, {short_repr(algorithm)}")

    return check


def _object(line: str) -> dict[str, object]:
    """Read a JSON object."""
    try:
        record = _JSON.decode(line)
    except json.JSONDecodeError as error:
        raise LineError(f"it is not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise LineError("its JSON is nested too deeply") from None
    if not isinstance(record, dict):
        raise LineError("it must be a JSON object")
    return record


def _first(record: dict[str, object], wanted: Sequence[str], option: str) -> tuple[str, object]:
    """Find the first wanted name that has a value, and the value."""
    for name in wanted:
        value = record.get(name)
        if value is None and "." in name:
            value = _nested(record, name)
        if value is not None:
            return name, value
    raise LineError(f"it has {lacks(record, wanted)}: name the right one with --{option}")


def _nested(record: object, name: str) -> object:
    """Follow a dotted name into a record."""
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def lacks(names: Iterable[str], wanted: Sequence[str]) -> str:
    """Say which field is missing and which there are, the first dozen of them."""
    return printable(f"no field {' or '.join(wanted)} but {', '.join(islice(names, 12))[:200]}")


def event(client: object, time: object, unit: int, cost: object) -> Event:
    """Read the three values of a record."""
    who = _text("the client", client)
    if not who:
        raise LineError("the client must not be empty")
    return who, read_instant(_text("time", time), unit), _cost(_text("cost", cost))


def _text(what: str, value: object) -> str:
    """Refuse a value that is neither text nor a number, which is still text."""
    if not isinstance(value, str):
        raise LineError(f"{what} must be a number or text, got {short_repr(value)}")
    return value.strip()


@lru_cache(maxsize=256)
def _cost(text: str) -> int:
    """Read a cost; few differ."""
    number = read_number(text)
    if number is None or not 1 <= number <= LARGEST or number % 1:
        raise LineError(f"cost must be a whole number from 1 to 2**62 - 1, got {short_repr(text)}")
    return int(number)
