"""Division by an algorithm's own numbers, as multiplication by their reciprocals: exact, and many times as fast.

Granlund and Montgomery, "Division by invariant integers using multiplication" (1994), theorem 4.2.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from ratelab.lab.compiled.processor import quotient
from ratelab.lab.compiled.rewriting import function_of, tree_of

SUFFIXES = ("_multiplier", "_shift")
"""Of the names of a field's reciprocal."""


def reciprocal(divisor: int) -> tuple[int, int]:
    """Return what `quotient` takes for a `divisor` from 1 to 2**63 - 1: a multiplier of 64 bits, and a shift.

    The multiplier, above 2**63, is given as the negative number of the same bits.
    """
    shift = (divisor - 1).bit_length()
    return (1 << 63 + shift) // divisor + 1 - (1 << 64), shift


def multiplying(step: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return `step` with each division by a field of the algorithm done by `quotient`, and these fields."""
    tree = tree_of(step)
    rewriter = _Rewriter(_fields(tree))
    return function_of(rewriter.visit(tree), step, {"quotient": quotient}), tuple(sorted(rewriter.divisors))


def _fields(tree: ast.AST) -> dict[str, str]:
    """Return which field of the algorithm each local name is for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = zip(map(ast.unparse, names), values, strict=True)
                found |= {name: value.attr for name, value in pairs if isinstance(value, ast.Attribute)}
    return found


class _Rewriter(ast.NodeTransformer):
    def __init__(self, fields: dict[str, str]) -> None:
        self.divisors: set[str] = set()
        self._fields = fields

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        field = self._fields.get(ast.unparse(node.right))
        if field is None or not isinstance(node.op, ast.FloorDiv):
            return node
        self.divisors.add(field)
        reciprocals = [ast.parse(f"self.{field}{suffix}", mode="eval").body for suffix in SUFFIXES]
        return ast.Call(ast.Name("quotient", ast.Load()), [node.left, *reciprocals], [])
