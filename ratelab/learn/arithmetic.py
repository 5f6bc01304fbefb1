"""One assignment of a step, written with its numbers."""

from __future__ import annotations

import ast
from copy import deepcopy
from typing import Any

from ratelab.limiter import NEVER

Names = dict[str, Any]
"""What a step's names stand for at one moment, those of its module included."""


def written(name: str, value: ast.expr, names: Names, result: Any) -> str:
    """Write one assignment with its numbers; empty if it only copies what is known already, or stands in for a wait."""
    value = chosen(value, names)
    if result == NEVER:
        return ""
    match value:
        case ast.Attribute() | ast.Subscript():
            return ""
        case ast.Name() | ast.Constant() if names.get(name) == result:
            return ""
        case ast.Constant():
            return f"{name} = {result}"
    text = value.id if isinstance(value, ast.Name) else ast.unparse(_Filled(names).visit(deepcopy(value)))
    end = f" = {result}" if not isinstance(result, bool) else ": yes" if result else ": no"
    return f"{name} = {text}{end}"


def chosen(value: ast.expr, names: Names) -> ast.expr:
    """Return what of a conditional expression is evaluated."""
    while isinstance(value, ast.IfExp):
        value = value.body if value_of(value.test, names) else value.orelse
    return value


class _Filled(ast.NodeTransformer):
    """Put numbers in the place of what stands for them."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def visit(self, node: ast.AST) -> Any:
        """Return `node`, or its value if it is a name, a field or a place in the state that holds a number."""
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            value = value_of(node, self._names)
            return ast.Constant(value) if isinstance(value, int) else node
        return super().generic_visit(node)


def value_of(expression: ast.expr, names: Names) -> Any:
    """Return what an expression that has just been evaluated came to; None if it cannot be evaluated again."""
    whole = ast.fix_missing_locations(ast.Expression(expression))
    try:
        return eval(compile(whole, "step", "eval"), names)  # noqa: S307  (a part of the very code that has just run)
    except Exception:
        return None
