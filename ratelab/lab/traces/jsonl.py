"""Formats of JSON objects, one in each line, each described by the paths of its fields."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import COMMENT, REPEATED, LineError, OmittedError
from ratelab.lab.traces.clients import is_address
from ratelab.lab.traces.files import make_printable
from ratelab.lab.traces.names import ALIASES, format_missing, list_paths, suggest
from ratelab.lab.traces.patterns import clean_path
from ratelab.lab.traces.requests import Field, FieldReader
from ratelab.lab.traces.timestamps import TimeRule, is_plausible

# Numbers stay text, so that they are parsed exactly and once, whatever the format.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


class ObjectSpec(NamedTuple):
    """How Arrow reads the fields of many objects."""

    fields: tuple[Field, ...]
    converters: tuple[Callable[[str], str] | None, ...]
    """For each field, how its text is converted."""
    shapes: list[Any]
    """The shape of the objects of an earlier block, if there was one."""


_BEFORE_OBJECT = " \t[\x1e"
"""Characters in front of an object: blanks, the bracket of an array, and the separator of RFC 7464."""


class MissingFieldError(LineError):
    """An object lacks a field. The message is formatted on demand, since only the first of many lines are reported."""

    def __init__(self, item: Field, record: Mapping[str, object]) -> None:
        super().__init__()
        self._item, self._record = item, record

    def __str__(self) -> str:
        names, option = self._item.names, self._item.option
        paths = list(list_paths(self._record))
        missing, hint = format_missing(names, paths), suggest(names, paths, option) or self._suggest_by_value(paths)
        return f"it has {missing}: name the right one with --{option}{hint}"

    def _suggest_by_value(self, paths: Sequence[str]) -> str:
        """Suggest the first field that holds an address or a time."""
        tests: dict[str, Callable[[str], bool]] = {
            "key": is_address,
            "time": lambda text: is_plausible(text, TimeRule()),
        }
        test = tests.get(self._item.option)
        values = ((path, find_value(self._record, path)) for path in paths)
        found = next((path for path, value in values if test and isinstance(value, str) and test(value)), None)
        return f"; did you mean --{self._item.option} {make_printable(found)}?" if found else ""


@dataclass(frozen=True)
class JsonFormat:
    """A format of JSON objects; the path `a.b` is the field `b` of the object `a`, or the field `a.b`."""

    name: str
    title: str
    """The programs that write it."""
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The paths of common fields, in addition to `ALIASES`: a line's value is that of the first path that it has."""
    required: tuple[str, ...] = ()
    """Paths that every line of the format has."""
    sample: str = ""
    """A line, with the names of `synthetic.SampleRequest` in brackets."""
    default_key: str = "ip"
    """The field of the client if none is named."""

    def matches(self, line: str) -> bool:
        """Return whether a line looks like an object of this format."""
        text = line.lstrip(_BEFORE_OBJECT)
        if not text.startswith("{") or line.isspace():
            return False
        if not self.required:
            return True
        try:
            record = _parse_object(line)
        except (LineError, OmittedError):
            return False
        return all(find_value(record, path) is not None for path in self.required)

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the paths that a name may stand for."""
        return tuple(dict.fromkeys((*self.paths.get(name, ()), name, *ALIASES.get(name, ()))))

    def bind(self, fields: Sequence[Field], _lines: Sequence[str]) -> FieldReader:
        """Return the reader of these fields."""
        converters = tuple(clean_path if _is_path(item) else None for item in fields)
        return FieldReader(_create_reader(tuple(fields), converters), ObjectSpec(tuple(fields), converters, []))


def _is_path(item: Field) -> bool:
    return "path" in item.names or "uri" in item.names


def _create_reader(
    fields: tuple[Field, ...], converters: Sequence[Callable[[str], str] | None]
) -> Callable[[str], Sequence[str]]:
    """Create a reader of single lines."""
    check_repeated = create_repeat_check()
    reads_events = any("at_ns" in item.names for item in fields)

    def read(line: str) -> Sequence[str]:
        record = _parse_object(line)
        if reads_events and "at_ns" in record:
            check_repeated(record.get("algorithm"))
        values = [_read_field(record, item) for item in fields]
        return [convert(value) if convert else value for value, convert in zip(values, converters, strict=True)]

    return read


def _read_field(record: Mapping[str, object], item: Field) -> str:
    """Return the text of a field."""
    values = [value for name in item.names if (value := find_value(record, name)) is not None]
    for value in values:
        if isinstance(value, str):
            return value
    if item.optional and len(item.names) > 1:
        return ""
    if values:
        role = _ROLES.get(item.option, item.names[0])
        raise LineError(f"{role} must be a number or text, got {short_repr(values[0])}")
    if item.optional:
        return ""
    raise MissingFieldError(item, record)


_ROLES = {"key": "client"}


def find_value(record: Mapping[str, object], name: str) -> object:
    """Return the value at a path, of a list its first item; None if there is none."""
    value = record.get(name)
    if value is None and "." in name:
        value = record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return value[0] if isinstance(value, list) and value else value


def create_repeat_check() -> Callable[[object], None]:
    """Create a check that accepts only the first algorithm of an `--events` file, which repeats requests for each."""
    first: list[object] = []

    def check(algorithm: object) -> None:
        first[:] = first or [algorithm]
        if algorithm != first[0]:
            raise OmittedError(REPEATED)

    return check


def _parse_object(line: str) -> dict[str, object]:
    """Parse a JSON object, which may be an item of an array that has an item in each line."""
    text = line if line.startswith("{") and line.endswith("}") else _strip_array(line)
    try:
        record = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise LineError(f"invalid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise LineError("invalid JSON (nested too deeply)") from None
    if not isinstance(record, dict):
        raise LineError("it must be a JSON object")
    return record


def _strip_array(line: str) -> str:
    """Remove the brackets and commas of an array that has an object in each line."""
    text = line.strip().lstrip("\x1e")
    if text in ("[", "]", "],"):
        raise OmittedError(COMMENT)
    if text.startswith("[") and text[1:].lstrip().startswith("{"):
        text = text[1:].lstrip()
    return text.rstrip("], \t") if text.startswith("{") else text


def check_layout(lines: Sequence[str], command: str) -> None:
    """Raise `InputError` with a command that converts the file if its objects are not one in each line.

    `command` is a pipeline that prints the file, converts it by jq, and replays it, with `{}` for the options of jq.
    """
    first, second = (*(line.strip() for line in lines[:2]), "")[:2]
    if name := _find_only_list(first):
        convert = command.format(shlex.quote(f"-c .{name}[]").replace("'-c ", "-c '"))
        raise InputError(f"its objects are in a list, {name}: convert it with {convert}")
    if rest := _find_second_object(first):
        options = "-cR " + shlex.quote(r'"[\(sub(",\\s*$"; ""))]" | fromjson[]') if rest.startswith(",") else "-c ."
        raise InputError(f"it has several JSON objects in one line: convert it with {command.format(options)}")
    start = first.removeprefix("[").strip() or second
    if _is_object(start.rstrip(",]")) or not start.startswith("{"):
        return
    if first.startswith("["):
        convert = command.format("-c '.[]'")
        raise InputError(f"it is one JSON array: convert it with {convert}")
    if len(lines) > 1 and first.count("{") > first.count("}"):
        convert = command.format("-c .")
        raise InputError(f"its JSON objects span several lines: convert it with {convert}")


def _find_second_object(text: str) -> str:
    """Return the text after an object if it is another object, possibly after a comma; empty otherwise."""
    try:
        _, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return ""
    rest = text[end:].lstrip()
    return rest if rest.lstrip(", \t").startswith("{") else ""


def _find_only_list(text: str) -> str | None:
    """Return the name of the only list of objects in an object that has no values next to it."""
    try:
        record = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    lists = [name for name, value in record.items() if _is_list(value)] if isinstance(record, dict) else []
    return lists[0] if len(lists) == 1 == len(record) and lists[0].isidentifier() else None


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_object(text: str) -> bool:
    try:
        return isinstance(_DECODER.decode(text), dict)
    except (ValueError, RecursionError):
        return False
