"""One step of an algorithm, worked out: the assignments that led to its decision, with their numbers."""

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

from ratelab.limiter import NEVER, Algorithm, Decision, State
from ratelab.quota import UNITS, Quota

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
    made = Decision(*row)
    told = ("allowed", *(name for name in ("retry_after_ns", "delay_ns") if 0 < getattr(made, name) < NEVER))
    return Worked(before, _lines(tree, moments, told) if tree and moments else [], made)


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


def _lines(tree: ast.FunctionDef, moments: list[_Moment], told: Sequence[str]) -> list[str]:
    """Write the assignments that were carried out and that the fields `told` of the decision hang on."""
    last = moments[-1]
    fields = {name: value for name, value in _returned(tree, last).items() if name in told}
    lines = _leading(tree, moments, fields.values())
    named = {value.id for value in fields.values() if isinstance(value, ast.Name)}
    if len(named) == len(fields):  # nothing hangs on what comes after the last of them
        end = max((place for place, (name, _) in enumerate(lines, 1) if name in named), default=len(lines))
        return [_once(texts) for texts in list(lines.values())[:end]]
    values = [(name, value) for name, value in fields.items() if not isinstance(value, ast.Name)]
    own = [written(name.removesuffix("_ns"), value, last.names, value_of(value, last.names)) for name, value in values]
    return [*map(_once, lines.values()), *filter(None, own)]


def _leading(
    tree: ast.FunctionDef, moments: list[_Moment], fields: Iterable[ast.expr]
) -> dict[tuple[str, int], list[str]]:
    """Write each assignment that `fields` hang on, by its name and line, as often as it was carried out."""
    wanted = _leading_to(tree, frozenset[str]().union(*map(_names, fields)))
    lines: dict[tuple[str, int], list[str]] = {}
    for name, value, line, before, after in _carried_out(tree, moments):
        text = written(name, value, before, after.get(name)) if name in wanted else ""
        if text:
            lines[name, line] = [*lines.pop((name, line), []), text]
    return lines


def _once(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{texts[-1]} (the last of {len(texts)})"


def _returned(tree: ast.FunctionDef, moment: _Moment) -> dict[str, ast.expr]:
    """Return the expressions of the fields that are returned at a moment, as far as there is one for each."""
    returned = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Return) and node.value and node.lineno <= moment.line <= (node.end_lineno or 0)
    ]
    value = returned[0] if returned else ast.Constant(None)
    values = value.elts if isinstance(value, ast.Tuple) else [value]
    return {name: chosen(one, moment.names) for name, one in zip(Decision._fields, values, strict=False)}


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


PLACES = 100
"""A unit of cost is earned in at least so many units of the lesson's time, so that halves are whole numbers."""


class Request(NamedTuple):
    """One request of the lesson."""

    at: int
    """When it comes, in the lesson's unit of time."""
    cost: int
    what: str
    shows: str
    """What it is there to see."""


class Lesson(NamedTuple):
    """A quota counted in the longest unit of time that suits it, and requests to decide: small numbers teach best."""

    unit: str
    """A name in `UNITS`."""
    quota: Quota
    """The quota, its times counted in `unit` instead of nanoseconds."""
    requests: list[Request]

    def nanoseconds(self, time: int) -> int:
        """Return a time of the lesson in nanoseconds."""
        return time * UNITS[self.unit]


def lesson(quota: Quota) -> Lesson:
    """Return the lesson on `quota`; kernels do not know their unit of time, so any will do."""
    unit = next((unit for unit in ("s", "ms", "us") if _suits(quota, UNITS[unit])), "ns")
    counted = Quota(quota.limit * UNITS[unit], quota.period, quota.burst)
    return Lesson(unit, counted, _requests(counted))


def worked(algorithm: Algorithm, requests: list[Request]) -> list[Worked]:
    """Work out every request of a lesson, all of one key."""
    state = algorithm.start(requests[0].at)
    return [work_out(algorithm, state, request.at, request.cost) for request in requests]


def _suits(quota: Quota, unit: int) -> bool:
    return quota.period % unit == 0 and quota.period >= PLACES * unit * quota.limit


def _requests(quota: Quota) -> list[Request]:
    window, burst = quota.window, quota.burst
    most, one = max(1, burst - 1), -(-quota.period // quota.limit)  # all but one; the time in which one is earned
    share, when = ("most", "shortly before a new window") if burst > 1 else ("all", "as a window begins")
    last = Request(window - one, 1, "the last of it", "whether all of the burst is granted")
    return [
        Request(window - one, most, f"{share} of a burst, {when}", "what a quiet key may send at once"),
        *([last] if burst > 1 else []),
        Request(window - one, 1, "one more at once", "what one too many is told"),
        Request(
            window - one + one // 2, 1, "half of the time later in which one is earned", "whether half of one counts"
        ),
        Request(window, 1, "the other half later, as a window begins", "whether one has come back, or everything"),
        Request(
            window + one // 2, most, f"{share} of a second burst", "what passes on both sides of a window's boundary"
        ),
        Request(2 * window - one // 2, burst, "more than a window after the first burst", "whether that is forgotten"),
        Request(4 * window, burst + 1, "more than the burst, after a pause", "what is said where no wait helps"),
        Request(4 * window, 1, "one, after a pause", "whether the denial before it took anything away"),
    ]
