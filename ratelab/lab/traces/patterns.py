"""Text formats, each described by patterns with a named group for each field."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from ratelab.errors import InputError, install_hint, short_repr
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.files import is_arrow_installed
from ratelab.lab.traces.names import ALIASES, format_missing, suggest
from ratelab.lab.traces.requests import Field, FieldReader

DERIVED = ("method", "path")
"""Fields that are parts of the group `request`, if there is no group of that name."""

SIZE = "bytes"
"""The field of the size of the response."""

MIN_ADDRESS_CHARS = 7
"""The length from which on a forwarded address at the end of a line is noted."""

END = r"(?:[ \t\r\n]|$)"
"""The end of a pattern: text after the known fields is ignored."""

_REQUEST = re.compile(r"(?:\x1b\[[0-9;]*m)*([A-Za-z_-]+) ([^\s?]+)")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_GROUP = re.compile(r"\(\?P<(\w+)>")


class Shape(NamedTuple):
    """One way in which the lines of a format look, in the syntax that RE2 and Python share."""

    body: str
    tail: str = ""
    """An optional part at the end, which is matched only if one of its fields is needed."""
    note: str = ""
    """The note on lines of this shape unless their forwarded addresses are read."""


class Watch(NamedTuple):
    """Forwarded addresses to look for in lines whose clients are read from another field."""

    shape_notes: tuple[str, ...]
    """For each pattern, the note on lines that it matches; empty for none."""
    end: str
    """The pattern of the end of other lines with forwarded addresses."""
    end_note: str
    """The note on these lines."""
    notes: set[str]
    """The notes on the lines that were read so far."""


class PatternSpec(NamedTuple):
    """How Arrow reads the fields of many lines: the first pattern that matches a line reads it."""

    patterns: tuple[str, ...]
    places: tuple[tuple[str | None, ...], ...]
    """For each pattern, the group of each field; None if the pattern lacks it."""
    converters: tuple[Callable[[str], str] | None, ...]
    """For each field, how its text is converted."""
    header: str = ""
    """A line that is left to the reader of single lines."""
    comment: str = ""
    """The beginning of lines that are left to it as well."""
    strips_quotes: bool = False
    """Whether values lose the quotes around them."""
    wholes: tuple[str, ...] = ()
    """For each pattern of the beginning of a line, one of the whole line, without groups, which is much faster."""
    watch: Watch | None = None
    """The addresses to look for in the lines that are read."""


@dataclass(frozen=True)
class TextFormat:
    """A format of text lines."""

    name: str
    title: str
    """The programs that write it."""
    shapes: tuple[Shape, ...]
    sample: str
    """A line, with the names of `synthetic.SampleRequest` in braces."""
    detector: str = ""
    """A pattern of lines of this format; by default any of its shapes."""
    default_key: str = "ip"
    """The field of the client if none is named."""
    expected: str = ""
    """The form of a line, for the reason of a reject."""
    forwarded_end: tuple[str, str] = ("", "")
    """The pattern of the end of lines with forwarded addresses, and the note on these lines if they are not read."""
    is_re2: bool = False
    """Whether the patterns are those of a user, which only RE2 matches in linear time."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields of a line."""
        groups = dict.fromkeys(name for body, tail, _ in self.shapes for name in _GROUP.findall(body + tail))
        derived = DERIVED if "request" in groups else ()
        return tuple(dict.fromkeys((*(name for name in groups if name != "request"), *derived)))

    def matches(self, line: str) -> bool:
        """Return whether a line looks like one of this format."""
        return any(pattern.match(line) for pattern in self._detectors)

    @cached_property
    def _detectors(self) -> list[re.Pattern[str]]:
        patterns = (self.detector,) if self.detector else (shape.body for shape in self.shapes)
        return [re.compile(pattern, re.ASCII) for pattern in patterns]

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the groups that a name may stand for."""
        return tuple(name for name in (name, *ALIASES.get(name, ())) if name in self.names) or (name,)

    def bind(self, fields: Sequence[Field], _lines: Sequence[str]) -> FieldReader:
        """Return the reader of these fields; raise `InputError` for a field that no shape has."""
        groups, converters = [], []
        for option, names, optional in fields:
            name = next((name for name in names if name in self.names), None)
            if name is None and not optional:
                raise InputError(self._explain_missing(option, names))
            group = "request" if name in DERIVED and not self._has_group(name) else name
            groups.append(group)
            is_size = (option, name) == ("cost", SIZE) and not self.is_re2
            converters.append(_convert_size if is_size else _CONVERTERS.get((group, name)) if name else None)
        spec = self._create_spec(groups, converters)
        if self.is_re2:
            return FieldReader(_create_re2_reader(spec), spec)
        times = [place for place, field in enumerate(fields) if field.option == "time"]
        notes = spec.watch.notes if spec.watch else frozenset[str]()
        return FieldReader(_create_reader(spec, self.expected, times), spec, notes)

    def _has_group(self, name: str | None) -> bool:
        return any(f"(?P<{name}>" in body + tail for body, tail, _ in self.shapes)

    def _explain_missing(self, option: str, names: Sequence[str]) -> str:
        if option in ("time", "cost"):
            return f"its lines have no field {names[0]}: leave out --{option}, or write a --pattern"
        fields = [name for name in self.names if name != "time"]
        return f"it has {format_missing(names, fields)}: name another field{suggest(names, fields, option)}"

    def _create_spec(
        self, groups: Sequence[str | None], converters: Sequence[Callable[[str], str] | None]
    ) -> PatternSpec:
        """Return the patterns, in which only the needed groups are captured."""
        patterns, places = [], []
        for body, tail, _ in self.shapes:
            present = set(_GROUP.findall(body + tail)).intersection(groups)
            tail = tail if present.intersection(_GROUP.findall(tail)) else ""
            pattern = body + tail if self.is_re2 else f"^{body}{tail}{END}"
            patterns.append(_capture_only(present, pattern))
            places.append(tuple(group if group in present else None for group in groups))
        watch = None
        if self.forwarded_end[0] and "forwarded" not in groups:
            watch = Watch(tuple(shape.note for shape in self.shapes), *self.forwarded_end, set())
        return PatternSpec(tuple(patterns), tuple(places), tuple(converters), watch=watch)


def _capture_only(names: Collection[str], pattern: str) -> str:
    """Return a pattern whose other groups have no names."""
    return _GROUP.sub(lambda match: match[0] if match[1] in names else "(?:", pattern)


def _create_reader(spec: PatternSpec, expected: str, times: Sequence[int]) -> Callable[[str], Sequence[str]]:
    """Create a reader of single lines that returns the same values as Arrow."""
    matchers = [
        (number, re.compile(pattern, re.ASCII).match, [group if group else 0 for group in places])
        for number, (pattern, places) in enumerate(zip(spec.patterns, spec.places, strict=True))
    ]
    note_line = _create_watch(spec.watch) if spec.watch else None
    converters = [(place, convert) for place, convert in enumerate(spec.converters) if convert]

    def read(line: str) -> Sequence[str]:
        for number, match_line, groups in matchers:
            match = match_line(line)
            if match is not None:
                if note_line is not None:
                    note_line(line, number)
                values = [(match[group] or "") if group else "" for group in groups]
                for place, convert in converters:
                    values[place] = convert(values[place])
                if not all(values[place] for place in times):
                    raise LineError("it has no time: add one in front, as docker logs --timestamps does")
                return values
        raise LineError(expected)

    return read


def _create_watch(watch: Watch) -> Callable[[str, int], None]:
    """Create a function that notes the addresses of a line, given the number of the pattern that it matches."""
    search = re.compile(watch.end, re.ASCII).search

    def note_line(line: str, number: int) -> None:
        if note := watch.shape_notes[number]:
            watch.notes.add(note)
        elif watch.end_note not in watch.notes and line.rstrip().endswith('"') and search(line):
            watch.notes.add(watch.end_note)

    return note_line


def _create_re2_reader(spec: PatternSpec) -> Callable[[str], Sequence[str]]:
    """Create a reader of single lines that matches as Arrow does."""
    from ratelab.lab.traces import arrow

    def read(line: str) -> Sequence[str]:
        values = arrow.match_line(line, spec.patterns[0])
        if values is None:
            raise LineError("it does not match --pattern")
        return [values.get(group or "") or "" for group in spec.places[0]]

    return read


def create_format(pattern: str) -> TextFormat:
    """Return the format of lines that a user's pattern describes; the group `client` is the field `ip`.

    Raises `InputError` for an invalid pattern, for one without a client or a time, and without PyArrow, whose engine,
    RE2, takes linear time for every pattern.
    """
    if not is_arrow_installed():
        raise InputError(f"--pattern needs pyarrow, whose RE2 cannot hang: {install_hint('logs')}")
    from ratelab.lab.traces import arrow

    groups = _GROUP.findall(pattern)
    if repeated := [name for name in groups if groups.count(name) > 1]:
        raise InputError(f"the pattern has two groups {short_repr(repeated[0])}: rename one of them")
    arrow.check_pattern(pattern)
    if "client" in groups and "ip" not in groups:
        pattern = pattern.replace("(?P<client>", "(?P<ip>")
    if "time" not in groups or not {"client", "ip", "forwarded"} & set(groups):
        raise InputError(
            f"a pattern must have the groups client and time, got {', '.join(groups) or 'none'}: "
            "write them as (?P<client>...) and (?P<time>...)"
        )
    default_key = "ip" if {"client", "ip"} & set(groups) else "forwarded"
    pattern = rf"(?m)\A{pattern[1:]}" if pattern.startswith("^") else f"(?m){pattern}"  # RE2 is faster with \A
    return TextFormat(
        "pattern", "lines described by --pattern", (Shape(pattern),), "", default_key=default_key, is_re2=True
    )


# --- parts of a request


@lru_cache(maxsize=1 << 14)
def get_method(request: str) -> str:
    """Return the method of a request line; empty if it is not one."""
    match = _REQUEST.match(request)
    return match[1] if match else ""


@lru_cache(maxsize=1 << 14)
def get_path(request: str) -> str:
    """Return the path of a request line, without the query; empty if it is not one."""
    match = _REQUEST.match(request)
    return clean_path(match[2]) if match else ""


def clean_path(url: str) -> str:
    """Return the path of a URL, without the query."""
    url = url.strip()
    path = _ORIGIN.sub("", url, count=1) if "://" in url else url
    return path.partition("?")[0] or ("/" if url else "")


def _convert_size(size: str) -> str:
    """Return the cost of a response of a size: one without a body costs 1, since a cost is at least 1."""
    return "1" if size in ("-", "-1", "0") else size.removeprefix("+")  # HAProxy: still being sent


_CONVERTERS: dict[tuple[str | None, str], Callable[[str], str]] = {
    ("request", "method"): get_method,
    ("request", "path"): get_path,
    ("path", "path"): clean_path,
}
