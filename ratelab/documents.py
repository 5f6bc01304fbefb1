"""Files that users write in YAML: values with line numbers, validation by pydantic models, and one-line errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from ratelab.algorithms import find
from ratelab.errors import InputError, format_reason, short_repr
from ratelab.quota import Quota, parse_duration

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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


# --- documents


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
            problem = str(error.problem)
            if problem.startswith("but "):
                problem = f"{error.context}, {problem}"
            line = mark.line + 1 if mark else 1
            raise InputError(f"{path}:{line}: invalid YAML: {problem}: compare with {kind.example}") from None
        except yaml.YAMLError as error:
            raise InputError(f"{path}: invalid YAML: {str(error).splitlines()[0]}: remove it") from None
        except RecursionError:
            raise InputError(f"{path}: invalid {kind.name} file: it is nested too deeply: remove brackets") from None
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
            rule = f"more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels, with anchors expanded"
            raise self.error(place, f"{rule}: write fewer")
        self.lines[place] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            return [self._convert(item, (*place, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            if len(node.value) > MAX_VALUE_CHARS:
                rule = f"a value may have at most {MAX_VALUE_CHARS} characters, got {len(node.value):,}"
                raise self.error(place, f"{rule}: shorten it")
            return str(node.value)
        values: dict[str, Value] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(place, "a key must be plain text: write a word without brackets", line)
            if key.value in values:
                raise self.error((*place, key.value), "duplicate key: remove one of them", line)
            values[key.value] = self._convert(item, (*place, key.value))
            self.lines[(*place, key.value)] = line
        return values


class OptionDocument(Document):
    """The values of an option of a command, which have no lines."""

    def __init__(self, option: str, value: Value) -> None:
        self.path, self.text, self.lines, self.value = option, "", {(): 0}, value

    def error(self, place: Place, problem: str, line: int = 0) -> DocumentError:
        """Return an error with the option and the key of the value at `place`."""
        return DocumentError(f"{self.path}: {': '.join([*map(str, place[-1:]), problem])}", line)


def _read_text(path: str, kind: Kind) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise InputError(f"{path}: {format_reason(error)}: name a {kind.name} file") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path}: a {kind.name} file may have at most {MAX_FILE_BYTES // 1000} kB: {kind.remedy}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {format_reason(error)}: save the file as UTF-8") from None


# --- values


def create_integer_parser(minimum: int, maximum: int = 10**9) -> Callable[[str], int]:
    """Create a parser of whole numbers from `minimum` to `maximum`."""
    rule = f"expected a whole number from {minimum} to {maximum}"

    def parse(value: str) -> int:
        if type(value) is not str or not value.isascii() or not value.removeprefix("-").isdecimal():
            raise InputError(f"{rule}, got {short_repr(value)}")
        if len(value) > 20 or not minimum <= int(value) <= maximum:
            raise InputError(f"{rule}, got {short_repr(value).strip(chr(39))}")
        return int(value)

    return parse


def parse_text(value: str) -> str:
    """Return text on one line; reject blank text and control characters."""
    line = " ".join(value.split()) if type(value) is str else ""
    if not line or not line.isprintable():
        raise InputError(f"expected printable text, got {short_repr(value)}: write a line of letters or digits")
    return line


def create_choice_parser(choices: Sequence[str]) -> Callable[[str], str]:
    """Create a parser of text that must be one of these."""

    def parse(value: str) -> str:
        if value not in choices:
            raise InputError(f"expected one of {', '.join(choices)}, got {short_repr(value)}")
        return value

    return parse


def parse_switch(value: str) -> bool:
    """Parse `true` or `false`."""
    if value not in ("true", "false"):
        raise InputError(f"expected true or false, got {short_repr(value)}")
    return value == "true"


def parse_number(value: str) -> float:
    """Parse a decimal number."""
    if type(value) is not str or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        raise InputError(f"expected a number such as 2 or 1.5, got {short_repr(value)}")
    return float(value)


def parse_rate(value: str) -> Quota:
    """Parse a rate; the burst of the quota is not used."""
    return Quota.parse(value)


def check_algorithm(value: str) -> str:
    """Return the name of an installed algorithm; reject a file, since reading a document must not run code."""
    if type(value) is not str or ".py:" in value:
        raise InputError(f"expected the name of an algorithm, got {short_repr(value)}; give a file with --algo")
    find(value, from_file=False)
    return value


class Example(NamedTuple):
    """An example of a value, for the error that its key is missing; of several for one key, the last counts."""

    text: str


Count = Annotated[int, PlainValidator(create_integer_parser(1)), Example("5")]
Number = Annotated[float, PlainValidator(parse_number)]
Switch = Annotated[bool, PlainValidator(parse_switch)]
Text = Annotated[str, PlainValidator(parse_text), Example("text")]
AlgorithmName = Annotated[str, PlainValidator(check_algorithm), Example("token-bucket")]
Rate = Annotated[Quota, PlainValidator(parse_rate), Example("10/s")]
Duration = Annotated[int, PlainValidator(parse_duration), Example("10s")]
"""Nanoseconds."""


# --- objects


class Strict(BaseModel):
    """An object without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


Model = TypeVar("Model", bound=BaseModel)


def validate(document: Document, model: type[Model]) -> Model:
    """Return the value of a document as an object of `model`; raise `InputError` for the first error in the file."""
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise min((document.error(*_format_error(model, item)) for item in details), key=lambda error: error.line)


def _format_error(model: type[BaseModel], details: ErrorDetails) -> tuple[Place, str]:
    """Return the place of an error, and a message that names the rule and the remedy."""
    place, kind = _locate(model, details["loc"])
    context: dict[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return place, str(context["error"])
        case "missing":
            return place[:-1], f"missing key {place[-1]!r}: add {place[-1]}: {_find_example(kind, str(place[-1]))}"
        case "extra_forbidden":
            return place, f"unknown key; {suggest(str(place[-1]), keys_of(kind))}"
        case "union_tag_not_found":
            return place, f"missing key {context['discriminator']}; choose one of {', '.join(tagged_models(kind))}"
        case "union_tag_invalid":
            name, tag = context["discriminator"].strip("'"), context["tag"]
            return (*place, name), f"unknown {name} {short_repr(tag)}; {suggest(tag, tagged_models(kind))}"
        case "too_long":
            return place, f"expected at most {context['max_length']}, got more: remove some"
        case "too_short":
            return place, "expected at least one, got an empty list: add one"
        case "list_type":
            return place, f"expected a list, got {short_repr(details['input'])}: put its items in brackets"
        case _:
            return place, f"expected keys and values, got {short_repr(details['input'])}: write them as {{key: value}}"


def _locate(kind: Any, loc: Place) -> tuple[Place, Any]:
    """Return the place in the file, without the tags that pydantic adds to `loc`, and the innermost object's type."""
    place: Place = ()
    inner = kind
    for step in loc:
        kind = _strip(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner, fields = kind, {field.alias or name: field for name, field in kind.model_fields.items()}
            kind = fields[str(step)].annotation if step in fields else None
        elif get_origin(kind) in (list, dict):
            kind = get_args(kind)[-1]
        elif step in (models := tagged_models(kind)):
            inner = kind = models[str(step)]
            continue
        place = (*place, step)
    return place, _strip(kind) if tagged_models(_strip(kind)) else inner


def _strip(kind: Any) -> Any:
    """Return a type without annotations, and without None."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    members = [member for member in get_args(kind) if member is not type(None)]
    return _strip(members[0]) if len(members) == 1 and type(None) in get_args(kind) else kind


def tagged_models(kind: Any) -> dict[str, type[BaseModel]]:
    """Return the models of a union by their tags: the values of the first field whose type is a literal."""
    models = {}
    for model in get_args(kind):
        for field in getattr(model, "model_fields", {}).values():
            values = get_args(field.annotation)
            if len(values) == 1 and isinstance(values[0], str):
                models[values[0]] = model
                break
    return models


def _find_example(model: type[BaseModel], key: str) -> str:
    """Return the example of the value of a key."""
    field = next(field for name, field in model.model_fields.items() if (field.alias or name) == key)
    return [each.text for each in field.metadata if isinstance(each, Example)][-1]


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys of an object."""
    return [field.alias or name for name, field in model.model_fields.items()]


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return a hint at the most similar of some choices, or at all of them."""
    near = get_close_matches(name, choices := [*choices], n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(choices)}"
