"""The rows of a CSV file under its header."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from difflib import get_close_matches

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.access_log import Event, ReadLine
from ratelab.lab.traces.files import LineError
from ratelab.lab.traces.jsonl import FieldNames, event, lacks, one_algorithm
from ratelab.lab.traces.timestamps import PLAIN_ISO, PLAIN_NUMBER

_INK = {",": r"!#-+.-~-", ";": "!#-:<-~", "\t": "!#-~"}
"""What can be seen of ASCII, without quotes and a delimiter: within the brackets of a pattern."""


def csv_reader(header: str, fields: FieldNames) -> ReadLine:
    """Make the reader of the rows under a CSV header, whose names count in any case of letters; a line is a row.

    Raises `InputError` for a header that lacks a field.
    """
    delimiter = csv_delimiter(header)
    names = csv_header(header)
    time = column_of(names, fields.times, "time")
    client = column_of(names, fields.clients, "key")
    cost = column_of(names, (fields.cost,), "cost") if fields.cost else None
    unit = fields.unit_of(names[time])

    algorithm = names.index("algorithm") if names[time] == "at_ns" and "algorithm" in names else None
    same = one_algorithm()

    def read(line: str) -> Event:
        row = _row(line, delimiter)
        if len(row) != len(names):
            raise LineError(f"a row must have the header's {len(names)} fields, got {len(row)}")
        if algorithm is not None:
            same(row[algorithm])
        return event(row[client], row[time], unit, "1" if cost is None else row[cost])

    return read


def csv_unit(header: str, fields: FieldNames) -> int:
    """Return how many nanoseconds a number in the column of the time counts."""
    names = csv_header(header)
    return fields.unit_of(names[column_of(names, fields.times, "time")])


def csv_patterns(header: str, fields: FieldNames) -> tuple[str, ...]:
    """Return patterns of nearly all rows that `csv_reader` reads, and reads as the sum of their groups.

    The groups are `client`, `cost` if there is one, and those of a plain time. There are none for what `--events`
    wrote, whose rows depend on the ones before, nor where one column is wanted twice.
    """
    delimiter, names = csv_delimiter(header), csv_header(header)
    ink = _INK[delimiter]
    wanted = {column_of(names, fields.clients, "key"): rf'(?P<client>[{ink}](?:[^"{delimiter}]*[{ink}])?)'}
    if fields.cost:
        wanted.setdefault(column_of(names, (fields.cost,), "cost"), "(?P<cost>[0-9]{1,18})")
    time = column_of(names, fields.times, "time")
    if time in wanted or len(wanted) < 1 + bool(fields.cost) or (names[time] == "at_ns" and "algorithm" in names):
        return ()
    return tuple(_pattern(len(names), delimiter, {**wanted, time: plain}) for plain in (PLAIN_NUMBER, PLAIN_ISO))


def _pattern(count: int, delimiter: str, wanted: dict[int, str]) -> str:
    """Return the pattern of a row of so many columns, some of them wanted."""
    columns = [rf" *{wanted[column]}[ \r]*" if column in wanted else rf'[^"{delimiter}]*' for column in range(count)]
    return rf"^{delimiter.join(columns)}\n?$"


def csv_delimiter(header: str) -> str:
    """Guess the delimiter of a CSV file: the one of comma, semicolon and tab that its header has most of."""
    return max(",;\t", key=header.count)


def csv_header(header: str) -> list[str]:
    """Read the names in a header, in small letters; none if it is broken."""
    try:
        return [name.strip().lower() for name in _row(header, csv_delimiter(header))]
    except LineError:
        return []


def _row(line: str, delimiter: str) -> list[str]:
    """Split a row; the csv module is slow, and only quotes need it."""
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader((line,), delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error as error:
        raise LineError(f"its quotes are broken ({error})") from None


def column_of(names: Sequence[str], wanted: Sequence[str], option: str) -> int:
    """Find the column of the first wanted name that the header has."""
    for name in wanted:
        if name.lower() in names:
            return names.index(name.lower())
    near = [close for name in wanted for close in get_close_matches(name.lower(), names, 1)]
    hint = f"; did you mean {short_repr(near[0])}?" if near else ""
    raise InputError(f"its header has {lacks(names, wanted)}: name the right one with --{option}{hint}")
