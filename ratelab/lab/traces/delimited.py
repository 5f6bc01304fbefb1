"""Delimited formats: CSV, W3C extended logs (IIS, CloudFront) and Zeek, whose fields are named by a header."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import COMMENT, LineError, OmittedError
from ratelab.lab.traces.clients import is_address
from ratelab.lab.traces.jsonl import create_repeat_check
from ratelab.lab.traces.names import ALIASES, TIMES, format_missing, suggest
from ratelab.lab.traces.patterns import PatternSpec, clean_path
from ratelab.lab.traces.requests import Field, FieldReader
from ratelab.lab.traces.timestamps import TimeRule, is_plausible

JOINED = "+"
"""Joins the names of two columns that hold one value, such as a date and a time."""


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Characters at which spreadsheets begin a formula (OWASP, "CSV Injection")."""


def escape_formula(text: str) -> str:
    """Put `'` before text that a spreadsheet would take for a formula, and before such text behind `'`."""
    return f"'{text}" if text.lstrip("'").startswith(FORMULA_STARTS) else text


def unescape_formula(cell: str) -> str:
    """Return the text of a cell that `escape_formula` wrote; other cells are unchanged."""
    cell = cell.strip()
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA_STARTS) else cell


@dataclass(frozen=True)
class DelimitedFormat:
    """A format of rows below a header."""

    name: str
    title: str
    """The programs that write it."""
    marker: str
    """What the header begins with, before the names; empty for CSV."""
    sample: str
    """A row, with the names of `synthetic.SampleRequest` in braces; the first line of the file is `sample_header`."""
    sample_header: str
    column: str = ""
    """A column that distinguishes the format from others with the same marker."""
    default_key: str = "ip"
    """The field of the client if none is named."""

    def matches(self, line: str) -> bool:
        """Return whether a line looks like the header."""
        if self.marker:
            return line.lower().startswith(self.marker.lower()) and self.column in line
        names = _parse_names(line, _detect_delimiter(line))
        return len(names) > 1 and not {name.lower() for name in TIMES}.isdisjoint(names)

    def has_column(self, line: str, name: str) -> bool:
        """Return whether a line is a header with this column."""
        return not self.marker and name.lower() in _parse_names(line, _detect_delimiter(line))

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the columns that a name may stand for."""
        return tuple(dict.fromkeys((name, *ALIASES.get(name, ()))))

    def bind(self, fields: Sequence[Field], lines: Sequence[str]) -> FieldReader:
        """Return the reader of these fields; raise `InputError` for a column that the header lacks."""
        header = _Header.parse(lines, self.marker)
        columns = [header.find(field) for field in fields]
        converters = [
            clean_path if "path" in field.names else unescape_formula if field.option == "key" else None
            for field in fields
        ]
        algorithm = header.events_column(columns, fields)
        read = _create_reader(header, columns, converters, algorithm)
        spec = None if algorithm is not None else _create_spec(header, columns, converters, lines)
        return FieldReader(read, spec)


@dataclass(frozen=True)
class _Header:
    """The names of the columns, in lower case."""

    line: str
    marker: str
    names: tuple[str, ...]
    delimiter: str

    @classmethod
    def parse(cls, lines: Sequence[str], marker: str) -> _Header:
        line = next((line for line in lines if line.lower().startswith(marker.lower())), "")
        rows = [row for row in lines if row is not line and not (marker and row.startswith("#"))]
        text = line[len(marker) :].strip("\r\n")
        delimiter = "\t" if marker and rows and "\t" in rows[0] else " " if marker else _detect_delimiter(line)
        names = tuple(text.lower().split()) if marker else tuple(_parse_names(text, delimiter))
        return cls(line.strip("\r\n"), marker, names, delimiter)

    def find(self, field: Field) -> tuple[int, ...]:
        """Return the column of the first of the field's names that is in the header, or two columns that are joined."""
        names = [name.lower() for name in field.names]
        for name in names:
            parts = name.split(JOINED) if name not in self.names else [name]
            if all(part in self.names for part in parts):
                return tuple(self.names.index(part) for part in parts)
        if field.optional:
            return ()
        raise InputError(
            f"its header has {format_missing(field.names, self.names)}: name the right one with --{field.option}"
            f"{suggest(field.names, self.names, field.option)}"
        )

    def events_column(self, columns: Sequence[tuple[int, ...]], fields: Sequence[Field]) -> int | None:
        """Return the column of the algorithm in a file written by `--events`, which has a row for each."""
        times = [places for places, field in zip(columns, fields, strict=True) if field.option == "time"]
        is_events = "algorithm" in self.names and any(
            self.names[place] == "at_ns" for places in times for place in places
        )
        return self.names.index("algorithm") if is_events else None


def check_header(line: str, command: str, is_csv: bool) -> None:
    """Raise `InputError` if the first row of a CSV file is a request instead of a header.

    `command` begins a pipeline that prints the file after a header, with `{}` for the header. Unless the file is known
    to be CSV, a request must have an address.
    """
    delimiter = _detect_delimiter(line)
    try:
        row = [cell.strip() for cell in _split_row(line.strip("\r\n"), delimiter)]
    except LineError:
        return
    roles = ["time" if is_plausible(cell, TimeRule()) else "ip" if is_address(cell) else "" for cell in row]
    if len(row) < _MIN_COLUMNS or "time" not in roles or not (is_csv or "ip" in roles):
        return
    client = roles.index("ip") if "ip" in roles else roles.index("")
    names = {roles.index("time"): "time", client: "ip"}
    header = delimiter.join(names.get(place, f"field{place + 1}") for place in range(len(row)))
    raise InputError(f"its first row is a request, not a header: add one with {command.format(header)}")


_MIN_COLUMNS = 2


def _create_reader(
    header: _Header,
    columns: Sequence[tuple[int, ...]],
    converters: Sequence[Callable[[str], str] | None],
    algorithm: int | None,
) -> Callable[[str], Sequence[str]]:
    """Create a reader of single rows; a row is one line."""
    check_repeated = create_repeat_check()
    size, delimiter, is_marked = len(header.names), header.delimiter, bool(header.marker)

    def read(line: str) -> Sequence[str]:
        line = line.removesuffix("\r")
        if line == header.line:
            raise OmittedError(COMMENT)
        if is_marked and line.startswith("#"):
            _check_comment(line, header)
            raise OmittedError(COMMENT)
        row = _split_row(line, delimiter)
        if len(row) != size:
            raise LineError(f"a row must have {size} fields like the header, got {len(row)}")
        if algorithm is not None:
            check_repeated(row[algorithm])
        values = [" ".join([row[place] for place in places]) for places in columns]
        return [convert(value) if convert else value for value, convert in zip(values, converters, strict=True)]

    return read


def _check_comment(line: str, header: _Header) -> None:
    """Raise `InputError` for a second header with other columns."""
    if (
        line.lower().startswith(header.marker.lower())
        and line[len(header.marker) :].split() != header.line[len(header.marker) :].split()
    ):
        raise InputError(f"its columns change at {short_repr(line)}: split the file there")


def _create_spec(
    header: _Header,
    columns: Sequence[tuple[int, ...]],
    converters: Sequence[Callable[[str], str] | None],
    lines: Sequence[str],
) -> PatternSpec:
    """Return the patterns of nearly all rows; in CSV, those of rows with quotes, which Arrow removes, come last.

    The pattern of the columns up to the last one that is needed reads the rows that the pattern of all columns matches.
    """
    needed = {place for places in columns for place in places}
    delimiter, size = header.delimiter, max(needed, default=0) + 1
    plain, quoted = rf'[^"{delimiter}\r\n]*', rf'(?:"[^"]*"|[^"{delimiter}\r\n]*)'
    cells = [plain] if header.marker else [quoted] if any('"' in line for line in lines[1:]) else [plain, quoted]
    groups = tuple(JOINED.join(f"c{place}" for place in places) or None for places in columns)
    patterns = [
        "^" + delimiter.join(f"(?P<c{place}>{cell})" if place in needed else cell for place in range(size))
        for cell in cells
    ]
    return PatternSpec(
        tuple(patterns),
        (groups,) * len(patterns),
        tuple(converters),
        header.line,
        "#" if header.marker else "",
        strips_quotes=True,
        wholes=tuple(rf"^{delimiter.join([cell] * len(header.names))}\r?\n?$" for cell in cells),
    )


def _detect_delimiter(header: str) -> str:
    """Return the most frequent of comma, semicolon and tab."""
    return max(",;\t", key=header.count)


def _parse_names(line: str, delimiter: str) -> list[str]:
    """Return the names in lower case; an empty list if the quotes are invalid."""
    try:
        return [name.strip().lower() for name in _split_row(line, delimiter)]
    except LineError:
        return []


def _split_row(line: str, delimiter: str) -> list[str]:
    """Split a row. The csv module is slow, and only quotes need it."""
    if '"' not in line or delimiter == " ":
        return line.split(delimiter)
    try:
        return next(csv.reader((line,), delimiter=delimiter, strict=True, skipinitialspace=True), [])
    except csv.Error as error:
        raise LineError(f"invalid quotes ({error})") from None


DELIMITED_FORMATS = (
    DelimitedFormat(
        "cloudfront",
        "AWS CloudFront, standard log",
        "#Fields:",
        "{iso_date}\t{iso_clock}\tFRA56-P1\t{size}\t{ip}\t{method}\tshop.example\t{path}\t{status}\t{referer}\t{agent_plus}",
        "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status "
        "cs(Referer) cs(User-Agent)\n",
        column="x-edge-location",
    ),
    DelimitedFormat(
        "w3c",
        "IIS and others, W3C extended",
        "#Fields:",
        "{iso_date} {iso_clock} 10.0.0.9 {method} {path} - 443 - {ip} {agent_plus} {status} 0 0 12",
        "#Software: Microsoft Internet Information Services 10.0\n#Version: 1.0\n"
        "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) sc-status "
        "sc-substatus sc-win32-status time-taken\n",
    ),
    DelimitedFormat(
        "zeek",
        "Zeek, conn.log and http.log",
        "#fields",
        "{epoch}\tC{id}\t{ip}\t40000\t10.0.0.9\t80\t1\t{method}\tshop.example\t{url}\t-\t{agent}\t{status}",
        "#separator \\x09\n#path\thttp\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\ttrans_depth\t"
        "method\thost\turi\treferrer\tuser_agent\tstatus_code\n",
    ),
    DelimitedFormat(
        "csv",
        "CSV with a header; separated by comma, semicolon or tab",
        "",
        '{epoch},{ip},{method},{url},{status},"{agent}"',
        "time,ip,method,path,status,agent\n",
    ),
)
"""The formats of rows, in the order in which they are tried."""
