"""Lines of `name=value` pairs, as written by loggers of Go, Grafana and Heroku."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ratelab.errors import InputError
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.names import ALIASES, TIMES, format_missing, suggest
from ratelab.lab.traces.patterns import PatternSpec, clean_path
from ratelab.lab.traces.requests import Field, FieldReader

_VALUE = r'(?:"[^"\\]*(?:\\.[^"\\]*)*"|[^ \t"\r\n]*)'
_PAIR = re.compile(rf"(?:^|[ \t])([A-Za-z_@][^ \t=\"]*)=({_VALUE})", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")
_MIN_PAIRS = 3


class PairSpec(NamedTuple):
    """How Arrow reads the values of names from many lines."""

    patterns: tuple[str, ...]
    """For each field, the pattern that finds its value; empty if it is missing from the file."""
    required: tuple[bool, ...]
    """For each field, whether a line must have it."""
    converters: tuple[Callable[[str], str], ...]
    """For each field, how its text is converted."""
    common: PatternSpec | None
    """Lines with the names of the first line that has all fields, in the same order; RE2 reads them much faster."""


@dataclass(frozen=True)
class LogfmtFormat:
    """A format of `name=value` pairs."""

    name: str = "logfmt"
    title: str = "name=value pairs"
    sample: str = 'time={iso_time} level=info ip={ip} method={method} path={url} status={status} agent="{agent}"'
    default_key: str = "ip"

    def matches(self, line: str) -> bool:
        """Return whether a line looks like pairs, one of which is a time."""
        names = [match[1] for match in _PAIR.finditer(line)]
        return len(names) >= _MIN_PAIRS and not set(TIMES).isdisjoint(names)

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the names that a name may stand for."""
        return tuple(dict.fromkeys((name, *ALIASES.get(name, ()))))

    def bind(self, fields: Sequence[Field], lines: Sequence[str]) -> FieldReader:
        """Return the reader of these fields, by the names that the first lines have."""
        present = dict.fromkeys(match[1] for line in lines for match in _PAIR.finditer(line))
        names, converters = [], []
        for item in fields:
            name = next((name for name in item.names if name in present), None)
            if name is None and not item.optional:
                raise InputError(
                    f"its lines have {format_missing(item.names, present)}: name the right one with --{item.option}"
                    f"{suggest(item.names, present, item.option)}"
                )
            names.append(name)
            converters.append(_read_path if "path" in item.names else _unquote)
        patterns = tuple(_create_pattern(name) if name else "" for name in names)
        required = tuple(not item.optional for item in fields)
        common = _create_common(names, converters, lines)
        spec = PairSpec(patterns, required, tuple(converters), common)
        return FieldReader(_create_reader(spec, fields), spec)


def _create_pattern(name: str) -> str:
    """Return the pattern that finds the first value of a name, in the syntax that RE2 and Python share."""
    return rf"^[ \t]*(?:[^ \t=\"]+(?:={_VALUE})?[ \t]+)*?{re.escape(name)}=(?P<value>{_VALUE})"


def _create_common(
    names: Sequence[str | None], converters: Sequence[Callable[[str], str]], lines: Sequence[str]
) -> PatternSpec | None:
    """Return the pattern of lines like the first that has these names; None if no line has all of them."""
    needed = {name for name in names if name}
    for line in lines:
        present = [match[1] for match in _PAIR.finditer(line)]
        if needed and needed.issubset(present):
            break
    else:
        return None
    last = max(map(present.index, needed))
    pairs = [
        f"{re.escape(name)}={f'(?P<c{place}>' if name in needed else '(?:'}{_VALUE})"
        for place, name in enumerate(present[: last + 1])
    ]
    groups = tuple(f"c{present.index(name)}" if name else None for name in names)
    return PatternSpec((r"^[ \t]*" + r"[ \t]+".join(pairs),), (groups,), tuple(converters))


def _create_reader(spec: PairSpec, fields: Sequence[Field]) -> Callable[[str], Sequence[str]]:
    """Create a reader of single lines that returns the same values as Arrow."""
    matchers = [re.compile(pattern, re.ASCII).match if pattern else None for pattern in spec.patterns]
    steps = list(zip(fields, matchers, spec.converters, strict=True))

    def read(line: str) -> Sequence[str]:
        values = []
        for item, match_line, convert in steps:
            match = match_line(line) if match_line else None
            if match is None and not item.optional:
                raise LineError(f"it has no {item.names[0]}=")
            values.append(convert(match["value"]) if match else "")
        return values

    return read


def _unquote(text: str) -> str:
    """Return a value without quotes and escapes."""
    return _ESCAPE.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def _read_path(text: str) -> str:
    return clean_path(_unquote(text))
