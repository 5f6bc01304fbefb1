"""A YAML file as plain values that remember where they stand."""

from __future__ import annotations

from pathlib import Path

import yaml

from ratelab.errors import InputError

LARGEST_FILE = 250_000
"""Bytes; a scenario is written by a person, and traffic in bulk belongs in a trace."""

MOST_VALUES = 100_000
"""Values that a file may hold once its anchors are expanded."""

MAX_VALUE_CHARS = 2000
"""Characters of a single value."""

Place = tuple[str | int, ...]
"""The way to a value: keys and positions, from the top."""

Value = str | list["Value"] | dict[str, "Value"]
"""Every scalar is text, as it was written: `on`, `1e3` and `0x10` mean themselves, and types come from the schema."""


class DocumentError(InputError):
    """A fault in a file, and the line it stands on."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Document:
    """The values of one file, and the line of each."""

    def __init__(self, path: str) -> None:
        """Read `path`; raise `InputError` if it cannot be read as one YAML document of plain values."""
        self.path = path
        self.lines: dict[Place, int] = {}
        try:
            self.text = _read(path)
            root = yaml.compose(self.text, Loader=yaml.BaseLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
        except RecursionError:
            raise InputError(f"{path}: nested too deep to be a scenario") from None
        if root is None:
            raise InputError(f"{path}: the file is empty; see `ratelab simulate --help` for what a scenario holds")
        self.value = self._plain(root, ())

    def error(self, place: Place, problem: str, line: int = 0) -> DocumentError:
        """Return the error that says what is wrong with the value at `place`, and on which line it stands."""
        line = line or next(self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines)
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")
        return DocumentError(
            f"{self.path}:{line}: {steps}: {problem}" if steps else f"{self.path}:{line}: {problem}", line
        )

    def _plain(self, node: yaml.Node, place: Place) -> Value:
        if len(self.lines) >= MOST_VALUES or len(place) > 20:
            raise self.error(place, f"more than {MOST_VALUES:,} values, or nested more than 20 deep, anchors expanded")
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*place, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            if len(node.value) > MAX_VALUE_CHARS:
                raise self.error(place, f"a value has at most {MAX_VALUE_CHARS} characters, got {len(node.value):,}")
            return str(node.value)
        values: dict[str, Value] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(place, "a key must be plain text", line)
            if key.value in values:
                raise self.error((*place, key.value), "this key stands here twice", line)
            values[key.value] = self._plain(item, (*place, key.value))
            self.lines[(*place, key.value)] = line
        return values


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: name a scenario file") from None
    if len(data) > LARGEST_FILE:
        raise InputError(
            f"{path}: a scenario is at most {LARGEST_FILE // 1000} kB; put traffic in a trace file and name it"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8: byte {data[error.start]:#04x} at {error.start}") from None
