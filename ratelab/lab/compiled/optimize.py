"""Optimized steps: the same decisions for traffic in order, in less time.

* A division by a field becomes a multiplication by its reciprocal, which is exact: Granlund and Montgomery, "Division
  by invariant integers using multiplication" (1994), theorem 4.2. A division that rounds up may return anything for a
  negative number: it computes a wait, and no step uses a negative one.
* `now` is not clamped to the time in the state, because no time precedes an earlier one.
* An index is unsigned, because no step counts a position from the end.
* Entries of a long state are not written if only fields that are not requested depend on them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.lab.compiled.intrinsics import divide_ceil, divide_floor
from ratelab.lab.step_source import define_step, parse_step
from ratelab.limiter import Algorithm


class LongState(NamedTuple):
    """How an engine may truncate and prefetch the long state of an algorithm."""

    unread: tuple[int, ...]
    """Positions in a state that only `remaining`, `retry_after_ns` and `reset_after_ns` depend on."""
    reached: Callable[[Any], Any]
    """Return the number of leading integers that a key can reach with this total cost."""
    next_access: Callable[..., Any]
    """Return the position in a state that the next step will read; compiled, and only a hint."""
    head: int
    """The position in a state that alone records a hit of cost 1: with its former value, the hit is undone."""


LONG_STATES: dict[type[Algorithm], LongState] = {
    SlidingLog: LongState(
        unread=(2,),  # position of the oldest entry
        reached=lambda total_cost: 4 + total_cost,
        next_access=lambda log, state: 4 + state[0],  # noqa: ARG005  (called as a method is)
        head=0,
    )
}

SUFFIXES = ("_multiplier", "_shift", "_rest")
"""Of the names of the fields that hold a field's reciprocal."""


def reciprocal(divisor: int) -> tuple[int, int, int]:
    """Return the reciprocal of a divisor from 1 to 2**63 - 1: a multiplier, a shift, and twice the largest remainder.

    Each is a word of 64 bits; one of 2**63 or more is returned as the negative integer with the same bits.
    """
    shift, rest = (divisor - 1).bit_length(), 2 * (divisor - 1)
    return (1 << 63 + shift) // divisor + 1 - (1 << 64), shift, rest if rest < 1 << 63 else rest - (1 << 64)


def optimize(step: Callable[..., Any], unread: tuple[int, ...]) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return `step` optimized, and the fields whose reciprocals it uses; it leaves `unread` positions unwritten."""
    tree = parse_step(step)
    optimizer = _StepOptimizer(tree, unread)
    functions = {"divide_floor": divide_floor, "divide_ceil": divide_ceil, "unsigned": np.uint64}
    return define_step(optimizer.visit(tree), step, functions), tuple(sorted(optimizer.divisors))


def _find_field_names(tree: ast.AST) -> dict[str, str]:
    """Return the field that each local name is assigned from, as in `limit, window = self.limit, self.window`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                pairs = zip(map(ast.unparse, names), values, strict=True)
                found |= {name: value.attr for name, value in pairs if isinstance(value, ast.Attribute)}
    return found


class _StepOptimizer(ast.NodeTransformer):
    def __init__(self, tree: ast.FunctionDef, unread: tuple[int, ...]) -> None:
        self.divisors: set[str] = set()
        self._fields = _find_field_names(tree)
        self._now = tree.args.args[2].arg
        self._unread = unread

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        match node:
            case ast.Assign(targets=[ast.Subscript(_, ast.Constant(place))]) if place in self._unread:
                return None
            case ast.Assign(targets=[ast.Name(name)], value=ast.IfExp(test, ast.Name(same), other)):
                if name == same == self._now and ast.unparse(test) == f"{name} > {ast.unparse(other)}":
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
            case ast.UnaryOp(ast.USub(), ast.Call(ast.Name("divide_floor"), [number, reciprocal])):
                return _call("divide_ceil", ast.UnaryOp(ast.USub(), number), reciprocal)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        field = self._fields.get(ast.unparse(node.right))
        if field is None or not isinstance(node.op, ast.FloorDiv):
            return node
        self.divisors.add(field)
        return _call("divide_floor", node.left, _parse(", ".join(f"self.{field}{suffix}" for suffix in SUFFIXES)))


def _parse(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [*arguments], [])
