"""YAML documents as plain values with line numbers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from ratelab.errors import InputError

MAX_FILE_BYTES = 250_000
"""Limit for files written by hand."""

MAX_VALUES = 100_000
"""Values of a file, with its anchors expanded."""

MAX_DEPTH = 20

MAX_VALUE_CHARS = 2000
"""Characters of one value."""

Place = tuple[str | int, ...]
"""The path of a value: keys and list indices, from the top."""

Value = str | list["Value"] | dict[str, "Value"]
"""Every scalar is text as in the file: `on`, `1e3` and `0x10` are not converted. The schema decides on types."""


class DocumentError(InputError):
    """An error in a file, and its line."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.line), self.__dict__


class Kind(NamedTuple):
    """A kind of documents, for error messages."""

    name: str
    """Such as `scenario`."""
    example: str
    """Where an example is found."""
    remedy: str
    """How to make a file smaller."""


class Document:
    """The values of a file, and their lines."""

    def __init__(self, path: str, kind: Kind) -> None:
        """Read `path`; raise `InputError` if it is not one YAML document of plain values."""
        self.path = path
        self.lines: dict[Place, int] = {}
        try:
            self.text = _read_text(path, kind)
            root = yaml.compose(self.text, Loader=yaml.BaseLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise InputError(f"{path}:{mark.line + 1 if mark else 1}: invalid YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: invalid YAML: {str(error).splitlines()[0]}") from None
        except RecursionError:
            raise InputError(f"{path}: invalid {kind.name} file: it is nested too deeply") from None
        if root is None:
            raise InputError(f"{path}: the file is empty: see {kind.example} for an example")
        self.value = self._convert(root, ())

    def error(self, place: Place, problem: str, line: int = 0) -> DocumentError:
        """Return an error with the file, the line and the path of the value at `place`."""
        line = line or next(self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines)
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
        return DocumentError(
            f"{self.path}:{line}: {path}: {problem}" if path else f"{self.path}:{line}: {problem}", line
        )

    def _convert(self, node: yaml.Node, place: Place) -> Value:
        """Convert a node to plain values, and store the line of each."""
        if len(self.lines) >= MAX_VALUES or len(place) > MAX_DEPTH:
            raise self.error(
                place, f"more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels, with anchors expanded"
            )
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            return [self._convert(item, (*place, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            if len(node.value) > MAX_VALUE_CHARS:
                raise self.error(
                    place, f"a value may have at most {MAX_VALUE_CHARS} characters, got {len(node.value):,}"
                )
            return str(node.value)
        values: dict[str, Value] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(place, "a key must be plain text", line)
            if key.value in values:
                raise self.error((*place, key.value), "duplicate key", line)
            values[key.value] = self._convert(item, (*place, key.value))
            self.lines[(*place, key.value)] = line
        return values


def _read_text(path: str, kind: Kind) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: name a {kind.name} file") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path}: a {kind.name} file may have at most {MAX_FILE_BYTES // 1000} kB: {kind.remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: invalid UTF-8: byte {data[error.start]:#04x} at offset {error.start}") from None
