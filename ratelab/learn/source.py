"""The source of an algorithm, cut down to what teaches: its parameters and its `step`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from textwrap import dedent

from ratelab.limiter import Algorithm


def teaching_source(algorithm: type[Algorithm]) -> str:
    """Return the lines of an algorithm's fields, comments included, and its `step`; empty if they cannot be had."""
    try:
        return "\n".join([*field_lines(algorithm), "", dedent(inspect.getsource(algorithm.step))]).strip()
    except (OSError, TypeError):
        return ""


def field_lines(algorithm: type[Algorithm]) -> list[str]:
    """Return the lines on which an algorithm's parameters are declared; raise `OSError` if there is no source."""
    source = dedent(inspect.getsource(algorithm))
    lines, body = source.splitlines(), getattr(ast.parse(source).body[0], "body", [])
    return [
        lines[node.lineno - 1].strip()
        for node in body
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar")
    ]


def parameters(algorithm: Algorithm) -> dict[str, int]:
    """Return the integers that an algorithm is made of, by name; none of an outside one that is no dataclass."""
    if not dataclasses.is_dataclass(algorithm):
        return {}
    return {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
