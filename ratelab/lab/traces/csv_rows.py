"""CSV files with a header."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import LineError, LineParser, ParsedRequest, RowPatterns
from ratelab.lab.traces.jsonl import create_repeat_check, format_missing, parse_values
from ratelab.lab.traces.timestamps import RE2_ISO_TIME, RE2_NUMBER

if TYPE_CHECKING:
    from ratelab.lab.traces.formats import TraceOptions

_VISIBLE = {",": r"!#-+.-~-", ";": "!#-:<-~", "\t": "!#-~"}
"""By delimiter, the visible ASCII characters without it and without quotes, as ranges within a pattern's brackets."""


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Characters at which spreadsheets begin a formula (OWASP, "CSV Injection")."""


def escape_formula(text: str) -> str:
    """Put `'` before text that a spreadsheet would take for a formula, and before such text behind `'`."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULA_STARTS) else text


def unescape_formula(cell: str) -> str:
    """Return the text of a cell that `escape_formula` wrote; other cells are unchanged."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA_STARTS) else cell


def is_csv_header(line: str, options: TraceOptions) -> bool:
    """Return whether a line looks like a CSV header with a column for the time."""
    times = {name.lower() for name in options.fields.times}
    return _detect_delimiter(line) in line and not times.isdisjoint(_parse_header(line))


def create_csv_parser(header: str, options: TraceOptions) -> LineParser:
    """Create the parser of the rows below a header; a row is one line, and case does not matter in names.

    Raises `InputError` if the header lacks a field.
    """
    delimiter, names, fields = _detect_delimiter(header), _parse_header(header), options.fields
    time = find_column(names, fields.times, "time")
    client = find_column(names, fields.clients, "key")
    cost = find_column(names, (fields.cost,), "cost") if fields.cost else None
    unit = fields.unit_of(names[time])

    algorithm = names.index("algorithm") if _repeats_requests(names, time) else None
    check_repeated = create_repeat_check()

    def parse(line: str) -> ParsedRequest:
        row = _split_row(line, delimiter)
        if len(row) != len(names):
            raise LineError(f"a row must have {len(names)} fields like the header, got {len(row)}")
        if algorithm is not None:
            check_repeated(row[algorithm])
        return parse_values(unescape_formula(row[client].strip()), row[time], unit, "1" if cost is None else row[cost])

    return parse


def create_csv_patterns(header: str, options: TraceOptions) -> RowPatterns | None:
    """Create the patterns of nearly all rows.

    There are none for an `--events` file, whose rows depend on earlier ones, nor if one column is used twice.
    """
    delimiter, names, fields = _detect_delimiter(header), _parse_header(header), options.fields
    visible = _VISIBLE[delimiter]
    first = visible.replace("#-", "#-&(-")  # not an apostrophe, which may be that of `escape_formula`
    groups = {find_column(names, fields.clients, "key"): rf'(?P<client>[{first}](?:[^"{delimiter}]*[{visible}])?)'}
    if fields.cost:
        groups.setdefault(find_column(names, (fields.cost,), "cost"), "(?P<cost>[0-9]{1,18})")
    time = find_column(names, fields.times, "time")
    if time in groups or len(groups) < 1 + bool(fields.cost) or _repeats_requests(names, time):
        return None
    patterns = tuple(
        _create_row_pattern(len(names), delimiter, {**groups, time: pattern}) for pattern in (RE2_NUMBER, RE2_ISO_TIME)
    )
    return RowPatterns(patterns, fields.unit_of(names[time]))


def _create_row_pattern(columns: int, delimiter: str, groups: dict[int, str]) -> str:
    """Return the pattern of a row with this many columns, some of which are captured."""
    parts = [rf" *{groups[column]}[ \r]*" if column in groups else rf'[^"{delimiter}]*' for column in range(columns)]
    return rf"^{delimiter.join(parts)}\n?$"


def _repeats_requests(names: Sequence[str], time: int) -> bool:
    """Return whether a file was written by `--events`, with a row for each request and algorithm."""
    return names[time] == "at_ns" and "algorithm" in names


def find_column(header: Sequence[str], names: Sequence[str], option: str) -> int:
    """Return the column of the first of these names that a header, in lower case, has."""
    for name in names:
        if name.lower() in header:
            return header.index(name.lower())
    near = [close for name in names for close in get_close_matches(name.lower(), header, 1)]
    hint = f"; did you mean {short_repr(near[0])}?" if near else ""
    raise InputError(f"its header has {format_missing(names, header)}: name the right one with --{option}{hint}")


def _detect_delimiter(header: str) -> str:
    """Return the most frequent of comma, semicolon and tab."""
    return max(",;\t", key=header.count)


def _parse_header(header: str) -> list[str]:
    """Return the names in lower case; an empty list if the quotes are invalid."""
    try:
        return [name.strip().lower() for name in _split_row(header, _detect_delimiter(header))]
    except LineError:
        return []


def _split_row(line: str, delimiter: str) -> list[str]:
    """Split a row. The csv module is slow, and only quotes need it."""
    if '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader((line,), delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error as error:
        raise LineError(f"invalid quotes ({error})") from None
