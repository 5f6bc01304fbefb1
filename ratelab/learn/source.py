"""Source code of an algorithm, reduced to its parameters and its `step`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from textwrap import dedent

from ratelab.limiter import Algorithm


def teaching_source(algorithm: type[Algorithm]) -> str:
    """Return an algorithm's parameters, with their comments, and its `step`; empty without source code."""
    try:
        return "\n".join([*field_lines(algorithm), "", dedent(inspect.getsource(algorithm.step))]).strip()
    except (OSError, TypeError):
        return ""


def field_lines(algorithm: type[Algorithm]) -> list[str]:
    """Return the lines that declare an algorithm's parameters; raise `OSError` without source code."""
    source = dedent(inspect.getsource(algorithm))
    lines, body = source.splitlines(), getattr(ast.parse(source).body[0], "body", [])
    return [
        lines[node.lineno - 1].strip()
        for node in body
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar")
    ]


def parameters(algorithm: Algorithm) -> dict[str, int]:
    """Return an algorithm's parameters by name; empty for a third-party class that is not a dataclass."""
    if not dataclasses.is_dataclass(algorithm):
        return {}
    return {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
