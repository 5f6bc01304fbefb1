"""Worked example: requests that show where algorithms differ, and each decision with its arithmetic."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from textwrap import dedent
from types import FrameType, FunctionType
from typing import Any, NamedTuple

from ratelab.errors import InputError
from ratelab.limiter import NEVER, ROW_FIELDS, Algorithm, Decision, State
from ratelab.quota import UNITS, Quota

TICKS_PER_COST = 100
"""A unit of cost takes at least this many ticks of the lesson's clock, so that half of it is a whole number."""


class LessonRequest(NamedTuple):
    """One request of a lesson."""

    at: int
    """Time in the lesson's unit."""
    cost: int
    description: str
    question: str
    """The question that its decision answers."""


class Lesson(NamedTuple):
    """A quota in the largest unit of time that suits it, for small numbers, and requests to decide."""

    unit: str
    """A name in `UNITS`."""
    quota: Quota
    """The quota, with its times in `unit` instead of nanoseconds."""
    requests: list[LessonRequest]

    def nanoseconds(self, time: int) -> int:
        """Convert a time of the lesson to nanoseconds."""
        return time * UNITS[self.unit]


class WorkedStep(NamedTuple):
    """One decision and its arithmetic."""

    before: list[int]
    """The state before the request."""
    lines: list[str]
    """The arithmetic, such as `tokens = 1750 - 500 = 1250`; empty without source code."""
    decision: Decision


def build_lesson(quota: Quota) -> Lesson:
    """Return the lesson for `quota`; an algorithm works in any unit of time, since its integers have none."""
    unit = next((unit for unit in ("s", "ms", "us") if _suits(quota, UNITS[unit])), "ns")
    if quota.calendar is not None:
        raise InputError(
            f"an example needs a period of fixed length, got {quota}: name a number of days, as in 1/30day"
        )
    scaled = Quota(quota.limit * UNITS[unit], quota.period, quota.burst)
    return Lesson(unit, scaled, _requests(scaled))


def work_out_lesson(algorithm: Algorithm, requests: list[LessonRequest]) -> list[WorkedStep]:
    """Work out the requests of a lesson, all for one key."""
    state = algorithm.start(requests[0].at)
    return [work_out(algorithm, state, request.at, request.cost) for request in requests]


def work_out(algorithm: Algorithm, state: State, now: int, cost: int) -> WorkedStep:
    """Take one step of `algorithm`, which updates `state`, and derive its arithmetic from its source and values."""
    before = list(state)
    step = type(algorithm).step
    tree = _parse(step)
    moments: list[_Moment] = []
    decision = Decision(*_trace_step(step, algorithm, state, now, cost, moments))
    fields = ("allowed", *(name for name in ("retry_after_ns", "delay_ns") if 0 < getattr(decision, name) < NEVER))
    return WorkedStep(before, _arithmetic(tree, moments, fields) if tree and moments else [], decision)


def _suits(quota: Quota, unit: int) -> bool:
    return quota.period % unit == 0 and quota.period >= TICKS_PER_COST * unit * quota.limit


def _requests(quota: Quota) -> list[LessonRequest]:
    window, burst = quota.window, quota.burst
    share, unit = max(1, burst - 1), -(-quota.period // quota.limit)  # almost a burst; the time that earns one unit
    name, place = ("most", "just before a window boundary") if burst > 1 else ("all", "as a window begins")
    last = LessonRequest(window - unit, 1, "the last of the burst", "Is the whole burst granted?")
    return [
        LessonRequest(window - unit, share, f"{name} of a burst, {place}", "How much may a quiet key send at once?"),
        *([last] if burst > 1 else []),
        LessonRequest(window - unit, 1, "one more at the same time", "How long must a request over the limit wait?"),
        LessonRequest(window - unit + unit // 2, 1, "after half the time that earns one", "Does half a unit count?"),
        LessonRequest(window, 1, "after the other half, as a window begins", "Is one unit back, or a whole burst?"),
        LessonRequest(window + unit // 2, share, f"{name} of a second burst", "How much can pass around a boundary?"),
        LessonRequest(
            2 * window - unit // 2, burst, "a burst, more than a window after the first", "Does the first still count?"
        ),
        LessonRequest(4 * window, burst + 1, "more than a burst, after a pause", "Can waiting help?"),
        LessonRequest(4 * window, 1, "one at the same time", "Did the denied request use any quota?"),
    ]


# --- the execution of a step


class _Moment(NamedTuple):
    """The values just before a line of the step, those of its module included."""

    line: int
    names: _Names


_Names = dict[str, Any]


def _parse(step: Any) -> ast.FunctionDef | None:
    """Parse a function's source, with line numbers of its file."""
    try:
        tree = ast.parse(dedent(inspect.getsource(step)))
    except (OSError, TypeError, SyntaxError):
        return None
    ast.increment_lineno(tree, step.__code__.co_firstlineno - 1)
    return tree.body[0] if isinstance(tree.body[0], ast.FunctionDef) else None


def _trace_step(
    step: Any, algorithm: Algorithm, state: State, now: int, cost: int, moments: list[_Moment]
) -> tuple[bool, int, int, int, int]:
    """Call a step, and append its values before each of its lines to `moments`."""
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


# --- the assignments that lead to a decision


def _arithmetic(tree: ast.FunctionDef, moments: list[_Moment], fields: Sequence[str]) -> list[str]:
    """Format the executed assignments on which the named fields of the decision depend."""
    last = moments[-1]
    returned = {name: value for name, value in _returned(tree, last).items() if name in fields}
    lines = _assignment_lines(tree, moments, returned.values())
    variables = {value.id for value in returned.values() if isinstance(value, ast.Name)}
    if len(variables) == len(returned):  # no field depends on an assignment after the last of these variables
        end = max((place for place, (name, _) in enumerate(lines, 1) if name in variables), default=len(lines))
        return [_join_repeated(texts) for texts in list(lines.values())[:end]]
    expressions = [(name, value) for name, value in returned.items() if not isinstance(value, ast.Name)]
    results = [
        _format_assignment(name.removesuffix("_ns"), value, last.names, _value(value, last.names))
        for name, value in expressions
    ]
    return [*map(_join_repeated, lines.values()), *filter(None, results)]


def _assignment_lines(
    tree: ast.FunctionDef, moments: list[_Moment], fields: Iterable[ast.expr]
) -> dict[tuple[str, int], list[str]]:
    """Format each assignment on which `fields` depend, by name and line, once for each time it was executed."""
    wanted = _dependencies(tree, frozenset[str]().union(*map(_names, fields)))
    lines: dict[tuple[str, int], list[str]] = {}
    for name, value, line, before, after in _executed_assignments(tree, moments):
        text = _format_assignment(name, value, before, after.get(name)) if name in wanted else ""
        if text:
            lines[name, line] = [*lines.pop((name, line), []), text]
    return lines


def _join_repeated(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{texts[-1]} (the last of {len(texts)})"


def _returned(tree: ast.FunctionDef, moment: _Moment) -> dict[str, ast.expr]:
    """Return the expression of each field that is returned at a moment; empty if they are not a literal tuple."""
    returned = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and node.value and node.lineno <= moment.line <= (node.end_lineno or 0)
    ]
    value = returned[0] if returned else ast.Constant(None)
    values = value.elts if isinstance(value, ast.Tuple) else [value]
    return {name: _taken_branch(one, moment.names) for name, one in zip(ROW_FIELDS, values, strict=False)}


def _assignments(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """Return each name that a statement assigns, with its expression."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return [(name, value)]
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
            return [(one.id, value) for one, value in zip(names, values, strict=True) if isinstance(one, ast.Name)]
        case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
            return [(name, ast.BinOp(ast.Name(name, ast.Load()), op, value))]
    return []


def _executed_assignments(
    tree: ast.FunctionDef, moments: list[_Moment]
) -> Iterator[tuple[str, ast.expr, int, _Names, _Names]]:
    """Yield each executed assignment: name, expression, line, and the values before and after it."""
    statements = {
        line: node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    compound = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.If | ast.While | ast.For)}
    previous = moments[0]
    for moment, following in pairwise(moments):
        node = statements.get(moment.line)
        if node is not None and statements.get(following.line) is not node:
            before, after = moment, following
            executed = node.lineno not in compound or _was_executed(node, before.names, after.names)
            if not executed and previous.line == moment.line:  # the last test of a loop on one line, on Python 3.14
                before, after, executed = previous, moment, True
            if executed:
                for name, value in _assignments(node):
                    yield name, value, node.lineno, before.names, after.names
        previous = moment


def _was_executed(node: ast.AST, before: _Names, after: _Names) -> bool:
    """Check the values of an assignment that shares its line with a condition."""
    return all(_value(value, before) in (None, after.get(name)) for name, value in _assignments(node))


def _dependencies(tree: ast.FunctionDef, wanted: frozenset[str]) -> frozenset[str]:
    """Return `wanted` and all names on which their values depend, directly or not."""
    direct = list(_direct_dependencies(tree, frozenset()))
    while True:
        more = wanted.union(*(names for name, names in direct if name in wanted))
        if more == wanted:
            return wanted
        wanted = more


def _direct_dependencies(node: ast.AST, conditions: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each name assigned below `node`, with the names in its expression and in the conditions around it."""
    for name, value in _assignments(node):
        yield name, _names(value) | conditions
    if isinstance(node, ast.If | ast.While):
        conditions = conditions | _names(node.test)
    for child in ast.iter_child_nodes(node):
        yield from _direct_dependencies(child, conditions)


def _names(expression: ast.expr) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(expression) if isinstance(node, ast.Name))


# --- one assignment with its numbers


def _format_assignment(name: str, value: ast.expr, names: _Names, result: Any) -> str:
    """Format an assignment with its numbers; return an empty text if it only copies a value, or assigns `NEVER`."""
    value = _taken_branch(value, names)
    if result == NEVER:
        return ""
    match value:
        case ast.Attribute() | ast.Subscript():
            return ""
        case ast.Name() | ast.Constant() if names.get(name) == result:
            return ""
        case ast.Constant():
            return f"{name} = {result}"
    text = value.id if isinstance(value, ast.Name) else ast.unparse(_NumberInserter(names).visit(deepcopy(value)))
    end = f" = {result}" if not isinstance(result, bool) else ": yes" if result else ": no"
    return f"{name} = {text}{end}"


def _taken_branch(value: ast.expr, names: _Names) -> ast.expr:
    """Return the branch of a conditional expression that is evaluated; return any other expression as it is."""
    while isinstance(value, ast.IfExp):
        value = value.body if _value(value.test, names) else value.orelse
    return value


class _NumberInserter(ast.NodeTransformer):
    """Replace names, fields and items of the state by their numbers."""

    def __init__(self, names: _Names) -> None:
        self._names = names

    def visit(self, node: ast.AST) -> Any:
        """Return the number that `node` stands for, if any, or `node`."""
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            value = _value(node, self._names)
            return ast.Constant(value) if isinstance(value, int) else node
        return super().generic_visit(node)


def _value(expression: ast.expr, names: _Names) -> Any:
    """Evaluate an expression of the step; return None if that fails."""
    whole = ast.fix_missing_locations(ast.Expression(expression))
    try:
        return eval(compile(whole, "step", "eval"), names)  # noqa: S307  (part of code that has just run)
    except Exception:
        return None
