"""One step of an algorithm, worked out: the assignments that led to its decision, with their numbers."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from textwrap import dedent
from types import FrameType, FunctionType
from typing import Any, NamedTuple

from ratelab.limiter import Algorithm, Decision, State

Names = dict[str, Any]
"""What a step's names stand for at one moment, those of its module included."""


class Worked(NamedTuple):
    """One request, decided."""

    before: list[int]
    """The state that it met."""
    lines: list[str]
    """Its arithmetic, such as `tokens = 1750 - 500 = 1250`; empty if the source cannot be had."""
    decision: Decision


class _Moment(NamedTuple):
    line: int
    names: Names


def work_out(algorithm: Algorithm, state: State, now: int, cost: int) -> Worked:
    """Take one step of `algorithm`, which changes `state`, and read its arithmetic off its own source and values."""
    before = list(state)
    step = type(algorithm).step
    tree = _tree(step)
    moments: list[_Moment] = []
    row = _watched(step, algorithm, state, now, cost, moments)
    return Worked(before, _lines(tree, moments) if tree and moments else [], Decision(*row))


def _tree(step: Any) -> ast.FunctionDef | None:
    """Parse a function's source, its lines numbered as in its file."""
    try:
        tree = ast.parse(dedent(inspect.getsource(step)))
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(tree, step.__code__.co_firstlineno - 1)
    return tree.body[0] if isinstance(tree.body[0], ast.FunctionDef) else None


def _watched(
    step: Any, algorithm: Algorithm, state: State, now: int, cost: int, moments: list[_Moment]
) -> tuple[bool, int, int, int, int]:
    """Call a step and note what its names stand for before each of its lines."""
    code = step.__code__ if isinstance(step, FunctionType) else None

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not code:
            return None
        if event in ("line", "return"):
            values = {name: list(value) if value is state else value for name, value in frame.f_locals.items()}
            moments.append(_Moment(frame.f_lineno, {**frame.f_globals, **values}))
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        return algorithm.step(state, now, cost)
    finally:
        sys.settrace(former)


def _lines(tree: ast.FunctionDef, moments: list[_Moment]) -> list[str]:
    """Write the assignments that were carried out and that the decision hangs on; one that is repeated, once."""
    allowed, last = _decisive(tree, moments[-1].line), moments[-1].names
    wanted = _leading_to(tree, _names(allowed))
    told: dict[tuple[str, int], list[str]] = {}
    for name, value, line, before, after in _carried_out(tree, moments):
        text = _written(name, value, before, after.get(name)) if name in wanted else ""
        if text:
            told[name, line] = [*told.pop((name, line), []), text]
    if isinstance(allowed, ast.Name):
        names = [name for name, _ in told]
        end = len(names) - names[::-1].index(allowed.id) if allowed.id in names else len(names)
        return [_once(texts) for texts in list(told.values())[:end]]
    return [*map(_once, told.values()), _written("allowed", allowed, last, _value(allowed, last))]


def _once(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{texts[-1]} (the last of {len(texts)})"


def _decisive(tree: ast.FunctionDef, line: int) -> ast.expr:
    """Return the expression whose value is `allowed`: the first of what the return at `line` returns."""
    returned = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and node.value and node.lineno <= line <= (node.end_lineno or line)
    ]
    value = returned[0] if returned else ast.Constant(None)
    return value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value


def _assignments(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Return the names that a statement assigns, each with its expression."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return [(name, value)]
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
            return [(one.id, value) for one, value in zip(names, values, strict=True) if isinstance(one, ast.Name)]
        case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
            return [(name, ast.BinOp(ast.Name(name, ast.Load()), op, value))]
    return []


def _leading_to(tree: ast.FunctionDef, wanted: frozenset[str]) -> frozenset[str]:
    """Return the names that `wanted` ones are made from, or whose value decides whether they are made."""
    made_from = list(_made_from(tree, frozenset()))
    while True:
        more = wanted.union(*(names for name, names in made_from if name in wanted))
        if more == wanted:
            return wanted
        wanted = more


def _made_from(node: ast.AST, tested: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each name that is assigned below `node`, with the names that this hangs on."""
    for name, value in _assignments(node):
        yield name, _names(value) | tested
    if isinstance(node, ast.If | ast.While):
        tested = tested | _names(node.test)
    for child in ast.iter_child_nodes(node):
        yield from _made_from(child, tested)


def _names(expression: ast.expr) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(expression) if isinstance(node, ast.Name))


def _carried_out(tree: ast.FunctionDef, moments: list[_Moment]) -> Iterator[tuple[str, ast.expr, int, Names, Names]]:
    """Yield each assignment that was carried out: name, expression, line, and the values before and after it."""
    at = {
        line: node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for moment, following in pairwise(moments):
        node = at.get(moment.line)
        if node is not None and at.get(following.line) is not node:
            for name, value in _assignments(node):
                yield name, value, node.lineno, moment.names, following.names


def _written(name: str, value: ast.expr, names: Names, result: Any) -> str:
    """Write one assignment with its numbers; empty if it only copies what is known already."""
    while isinstance(value, ast.IfExp):
        value = value.body if _value(value.test, names) else value.orelse
    match value:
        case ast.Attribute() | ast.Subscript():
            return ""
        case ast.Name() if names.get(name) == result:
            return ""
        case ast.Constant():
            return f"{name} = {result}"
    text = value.id if isinstance(value, ast.Name) else ast.unparse(_Filled(names).visit(deepcopy(value)))
    end = f" = {result}" if not isinstance(result, bool) else ": yes" if result else ": no"
    return f"{name} = {text}{end}"


class _Filled(ast.NodeTransformer):
    """Put numbers in the place of what stands for them."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def visit(self, node: ast.AST) -> Any:
        """Return `node`, or its value if it is a name, a field or a place in the state that holds a number."""
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            value = _value(node, self._names)
            return ast.Constant(value) if isinstance(value, int) else node
        return super().generic_visit(node)


def _value(expression: ast.expr, names: Names) -> Any:
    """Return what an expression that has just been evaluated came to; None if it cannot be evaluated again."""
    whole = ast.fix_missing_locations(ast.Expression(expression))
    try:
        return eval(compile(whole, "step", "eval"), names)  # noqa: S307  (a part of the very code that has just run)
    except Exception:
        return None
