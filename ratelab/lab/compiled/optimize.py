"""Our steps, made shorter by what a replay knows.

A division by one of the algorithm's own numbers is a multiplication by its reciprocal: exact, and many times as fast.
One that is rounded up tells a wait, which is never negative where it is used. No time is before an earlier one's. No
place in a state is counted from its end. And what only helps to tell more than is asked for is not kept.

Granlund and Montgomery, "Division by invariant integers using multiplication" (1994), theorem 4.2.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.lab.compiled.intrinsics import divide_ceil, divide_floor
from ratelab.lab.compiled.step_source import function_of, tree_of
from ratelab.limiter import Algorithm


class LongState(NamedTuple):
    """How an engine may truncate and prefetch the long state of an algorithm."""

    unread: tuple[int, ...]
    """Positions in a state that only `remaining`, `retry_after_ns` and `reset_after_ns` depend on."""
    reached: Callable[[Any], Any]
    """Return the number of leading integers that a key can reach with this total cost."""
    next_access: Callable[..., Any]
    """Return the position in a state that the next step will read; compiled, and only a hint."""


LONG_STATES: dict[type[Algorithm], LongState] = {
    SlidingLog: LongState(
        unread=(2,),  # place of the oldest entry
        reached=lambda total_cost: 4 + total_cost,
        next_access=lambda log, state: 4 + state[0],  # noqa: ARG005  (called as a method is)
    )
}

SUFFIXES = ("_multiplier", "_shift", "_rest")
"""Of the names of a field's reciprocal."""


def reciprocal(divisor: int) -> tuple[int, int, int]:
    """Return what stands for a `divisor` from 1 to 2**63 - 1: a multiplier, a shift, and twice the largest rest.

    Each has 64 bits; where it is 2**63 or more, it is given as the negative number of the same bits.
    """
    shift, rest = (divisor - 1).bit_length(), 2 * (divisor - 1)
    return (1 << 63 + shift) // divisor + 1 - (1 << 64), shift, rest if rest < 1 << 63 else rest - (1 << 64)


def shortened(step: Callable[..., Any], unkept: tuple[int, ...]) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return `step` made shorter, and the fields of the algorithm whose reciprocals it takes.

    It leaves the `unkept` places of a state as they are.
    """
    tree = tree_of(step)
    rewriter = _StepOptimizer(tree, unkept)
    known = {"quotient": divide_floor, "ceiling": divide_ceil, "unsigned": np.uint64}
    return function_of(rewriter.visit(tree), step, known), tuple(sorted(rewriter.divisors))


def _fields(tree: ast.AST) -> dict[str, str]:
    """Return which field of the algorithm each local name is for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = zip(map(ast.unparse, names), values, strict=True)
                found |= {name: value.attr for name, value in pairs if isinstance(value, ast.Attribute)}
    return found


class _StepOptimizer(ast.NodeTransformer):
    def __init__(self, tree: ast.FunctionDef, unkept: tuple[int, ...]) -> None:
        self.divisors: set[str] = set()
        self._fields = _fields(tree)
        self._now = tree.args.args[2].arg
        self._unkept = unkept

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        match node:
            case ast.Assign(targets=[ast.Subscript(_, ast.Constant(place))]) if place in self._unkept:
                return None
            case ast.Assign(targets=[ast.Name(name)], value=ast.IfExp(test, ast.Name(kept), other)):
                if name == kept == self._now and ast.unparse(test) == f"{name} > {ast.unparse(other)}":
                    return None
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.slice, ast.Constant):
            node.slice = _call("unsigned", node.slice)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.UnaryOp(ast.USub(), ast.Call(ast.Name("quotient"), [number, reciprocal])):
                return _call("ceiling", ast.UnaryOp(ast.USub(), number), reciprocal)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        field = self._fields.get(ast.unparse(node.right))
        if field is None or not isinstance(node.op, ast.FloorDiv):
            return node
        self.divisors.add(field)
        return _call("quotient", node.left, _read(", ".join(f"self.{field}{suffix}" for suffix in SUFFIXES)))


def _read(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [*arguments], [])
