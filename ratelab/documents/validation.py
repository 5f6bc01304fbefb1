"""Validation of documents against pydantic models, and one-line errors with line, path, value and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from ratelab.algorithms import find
from ratelab.documents.yaml_document import Document, Place
from ratelab.errors import InputError, short_repr
from ratelab.quota import Quota, parse_duration

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
        raise InputError(f"expected printable text, got {short_repr(value)}")
    return line


def create_choice_parser(choices: Sequence[str]) -> Callable[[str], str]:
    """Create a parser of text that must be one of these."""

    def parse(value: str) -> str:
        if value not in choices:
            raise InputError(f"expected one of {', '.join(choices)}, got {short_repr(value)}")
        return value

    return parse


def parse_rate(value: str) -> Quota:
    """Parse a rate; the burst of the quota is not used."""
    return Quota.parse(value)


def check_algorithm(value: str) -> str:
    """Return the name of an installed algorithm; reject a file, since reading a document must not run code."""
    if type(value) is not str or ".py:" in value:
        raise InputError(f"expected the name of an algorithm, got {short_repr(value)}; give a file with --algo")
    find(value)
    return value


Count = Annotated[int, PlainValidator(create_integer_parser(1))]
Text = Annotated[str, PlainValidator(parse_text)]
AlgorithmName = Annotated[str, PlainValidator(check_algorithm)]
Rate = Annotated[Quota, PlainValidator(parse_rate)]
Duration = Annotated[int, PlainValidator(parse_duration)]
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
            return place[:-1], f"missing key {place[-1]!r}"
        case "extra_forbidden":
            return place, f"unknown key; {suggest(str(place[-1]), keys_of(kind))}"
        case "union_tag_not_found":
            return place, f"missing key {context['discriminator']}; choose one of {', '.join(tagged_models(kind))}"
        case "union_tag_invalid":
            name, tag = context["discriminator"].strip("'"), context["tag"]
            return (*place, name), f"unknown {name} {short_repr(tag)}; {suggest(tag, tagged_models(kind))}"
        case "too_long":
            return place, f"expected at most {context['max_length']}, got more"
        case "too_short":
            return place, "expected at least one, got an empty list"
        case "list_type":
            return place, f"expected a list, got {short_repr(details['input'])}"
        case _:
            return place, f"expected keys and values, got {short_repr(details['input'])}"


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
    return members[0] if len(members) == 1 and type(None) in get_args(kind) else kind


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


def keys_of(model: type[BaseModel]) -> list[str]:
    """Return the keys of an object."""
    return [field.alias or name for name, field in model.model_fields.items()]


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return a hint at the most similar of some choices, or at all of them."""
    near = get_close_matches(name, choices := [*choices], n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(choices)}"
