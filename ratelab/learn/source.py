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
        whole, step = dedent(inspect.getsource(algorithm)), dedent(inspect.getsource(algorithm.step))
    except (OSError, TypeError):
        return ""
    lines, body = whole.splitlines(), getattr(ast.parse(whole).body[0], "body", [])
    fields = [
        dedent(lines[node.lineno - 1])
        for node in body
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar")
    ]
    return "\n".join([*fields, "", step]).strip()


def parameters(algorithm: Algorithm) -> dict[str, int]:
    """Return the integers that an algorithm is made of, by name; none of an outside one that is no dataclass."""
    if not dataclasses.is_dataclass(algorithm):
        return {}
    return {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
