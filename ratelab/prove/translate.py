"""Translation of a step from its source into terms, by running it on terms.

A statement runs under a condition, the one under which Python would reach it: an assignment keeps the former value
elsewhere. Both branches of an `if` are run, and a loop is repeated as long as the solver finds that it may go on. What
Python would answer with an exception, such as a division by 0, becomes a fault with the condition under which it
happens.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from inspect import getfile
from typing import Any, NamedTuple

from ratelab.errors import InputError
from ratelab.lab.step_source import parse_step
from ratelab.limiter import NEVER, ROW_FIELDS, Algorithm
from ratelab.prove.expressions import Evaluator, StepFault, may_hold
from ratelab.prove.terms import (
    Number,
    Truth,
    all_of,
    any_of,
    choose,
    is_term,
    negate,
    to_number,
    to_truth,
)

MAX_ITERATIONS = 64
"""The number of times that a loop may go on whose end depends on the state, the time or the cost."""


class Stepped(NamedTuple):
    """The result of a step, the state that it leaves, and its faults."""

    row: tuple[Any, ...]
    state: list[Number]
    faults: list[StepFault]


class Method(NamedTuple):
    """The source of a method, and the global names that it may use."""

    definition: ast.FunctionDef
    file: str
    names: dict[str, Any]

    def check(self, arguments: int) -> None:
        """Raise `InputError` unless it is a plain method with this number of arguments."""
        given = self.definition.args
        extra = given.vararg or given.kwarg or given.defaults or given.kwonlyargs or self.definition.decorator_list
        if extra or len(given.args) != arguments:
            raise InputError(
                f"{self.file}:{self.definition.lineno}: `{self.definition.name}` cannot be proved: it must be a plain "
                f"method with {arguments} arguments; remove decorators and defaults"
            )


def read_method(function: Any) -> Method:
    """Return the source of a method; raise `InputError` unless there is one."""
    name = getattr(function, "__qualname__", str(function))
    try:
        definition = parse_step(function)
        if function.__code__.co_freevars or hasattr(function, "__wrapped__"):
            raise InputError(
                f"{getfile(function)}:{definition.lineno}: `{name}` cannot be proved: it has a closure or a decorator; "
                "use fields instead"
            )
    except (OSError, TypeError, AttributeError, AssertionError):
        raise InputError(f"{name} cannot be proved, because there is no source: save the class in a file") from None
    return Method(definition, getfile(function), function.__globals__)


def parse_method(source: str, name: str) -> Method:
    """Return the source of a function of a file, which is not run; raise `InputError` unless the file is plain.

    Other names of the file may be whole numbers; any other one is not known to the function.
    """
    names: dict[str, Any] = {}
    found: ast.FunctionDef | None = None
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef() if node.name == name:
                found = node
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Constant(value=int() as value)):
                names[target] = value
            case ast.ImportFrom():
                names |= {alias.asname or alias.name: None for alias in node.names if alias.name != "NEVER"}
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise InputError(f"line {node.lineno} cannot be proved: only {name} and whole numbers can be defined")
    if found is None:
        raise InputError(f"missing function: {name}")
    return Method(found, "submission", {"NEVER": NEVER, **names})


class Translator:
    """The `start` and the `step` of an algorithm, for states, times and costs that are terms."""

    def __init__(self, algorithm: Algorithm, step: Method | None = None) -> None:
        """Read the source; raise `InputError` unless there is one. Another `step` may replace that of the class."""
        self.algorithm, kind = algorithm, type(algorithm)
        self._start, self._step = read_method(kind.start), step or read_method(kind.step)
        self._start.check(2)
        self._step.check(4)

    def start(self, now: Number) -> list[Number]:
        """Return the state of a new key."""
        return [*self._run(self._start, now).result]

    def step(self, state: Sequence[Number], now: Number, cost: Number) -> Stepped:
        """Return the result of a step; `state` is left as it is."""
        after = [*state]
        run = self._run(self._step, after, now, cost)
        if len(run.result) != len(ROW_FIELDS):
            raise run.values.error(self._step.definition, f"step() must return {', '.join(ROW_FIELDS)}")
        return Stepped((to_truth(run.result[0]), *map(to_number, run.result[1:])), after, run.values.faults)

    def _run(self, method: Method, *values: Any) -> _Run:
        definition = method.definition
        names = [argument.arg for argument in definition.args.args]
        run = _Run(self, method, dict(zip(names, [self.algorithm, *values], strict=True)))
        run.execute(definition.body)
        if run.result is None:
            raise run.values.error(definition, f"{definition.name}() returns nothing: return its result")
        run.values.add_fault(run.values.reached, definition, f"{definition.name}() ends without a result")
        return run


class _Run:
    """One execution of a method on terms."""

    def __init__(self, translator: Translator, method: Method, names: dict[str, Any]) -> None:
        self._translator = translator
        self.values = Evaluator(translator.algorithm, method.file, method.names, names)
        self._left: list[list[Truth]] = []  # by loop: the conditions of `break`, and of `continue`
        self.result: Any = None

    def execute(self, statements: Sequence[ast.stmt]) -> None:
        """Run statements as far as they are reached."""
        for statement in statements:
            if is_term(self.values.reached) or self.values.reached:
                self._execute(statement)

    def _execute(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign():
                assigned = self.values.evaluate(node.value)
                for target in node.targets:
                    self._assign(target, assigned)
            case ast.AnnAssign(value=ast.expr() as value):
                self._assign(node.target, self.values.evaluate(value))
            case ast.AugAssign():
                read = _locate(ast.parse(ast.unparse(node.target), mode="eval").body, node)
                operation = ast.copy_location(ast.BinOp(read, node.op, node.value), node)
                self._assign(node.target, self.values.operate(operation))
            case ast.If():
                test = to_truth(self.values.evaluate(node.test))
                self.values.branch(test, lambda: self.execute(node.body), lambda: self.execute(node.orelse))
            case ast.While() if not node.orelse:
                self._loop(node, lambda _: to_truth(self.values.evaluate(node.test)), None)
            case ast.For(target=ast.Name()) if not node.orelse:
                self._for(node)
            case ast.Break() | ast.Continue():
                leaves = self._left[-1]
                place = int(isinstance(node, ast.Continue))
                leaves[place] = any_of(leaves[place], self.values.reached)
                self.values.reached = False
            case ast.Return(value=ast.Tuple() | ast.List() | ast.BinOp() | ast.Name()):
                self._return(node)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call() as call) if ast.unparse(call.func) == "self.step":
                self._call_step(call)
            case _:
                self.values.reject(node)

    def _return(self, node: ast.Return) -> None:
        assert node.value is not None  # noqa: S101  (for mypy)
        value = self.values.evaluate(node.value)
        if not isinstance(value, list):
            self.values.reject(node, "return the five fields, or the state, as a display such as [a, b]")
        if self.result is None:
            self.result = value
        elif len(self.result) != len(value):
            self.values.reject(node, "return as many values everywhere")
        else:
            self.result = [choose(self.values.reached, *pair) for pair in zip(value, self.result, strict=True)]
        self.values.reached = False

    def _call_step(self, node: ast.Call) -> None:
        """Run `self.step(state, now, cost)`, as a `start` may."""
        state, now, cost = map(self.values.evaluate, node.args)
        done = self._translator.step(state, now, cost)
        for fault in done.faults:
            self.values.faults.append(fault._replace(condition=all_of(self.values.reached, fault.condition)))
        state[:] = [choose(self.values.reached, *pair) for pair in zip(done.state, state, strict=True)]

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name():
                known = self.values.known.get(target.id, False)
                if self.values.reached is not True and not (is_term(value) or isinstance(value, int)):
                    self.values.reject(target, "assign it on every path")
                if known is not False and self.values.reached is not True:
                    value = choose(self.values.reached, value, self.values.names[target.id])
                self.values.names[target.id] = value
                self.values.known[target.id] = any_of(known, self.values.reached)
            case ast.Tuple() | ast.List():
                if not isinstance(value, list) or len(value) != len(target.elts):
                    self.values.reject(target, "assign as many values as there are names")
                for one, part in zip(target.elts, value, strict=True):
                    self._assign(one, part)
            case ast.Subscript(value=ast.Name()):
                items = self.values.evaluate(target.value)
                if not isinstance(items, list):
                    self.values.reject(target, "only the state can be changed")
                if isinstance(target.slice, ast.Slice):
                    self._assign_all(target, target.slice, items, value)
                    return
                place = self.values.find_place(target, items)
                for number in [place] if not is_term(place) else range(len(items)):
                    here = all_of(self.values.reached, place == number)
                    items[number] = choose(here, to_number(value), items[number])
            case _:
                self.values.reject(target)

    def _assign_all(self, target: ast.Subscript, part: ast.Slice, items: list[Number], value: Any) -> None:
        """Replace all items, as `state[:] = tokens, now` does."""
        if part.lower or part.upper or part.step or not isinstance(value, list) or len(value) != len(items):
            self.values.reject(target, "assign the whole state, or one item at a time")
        reached = self.values.reached
        items[:] = [choose(reached, to_number(new), old) for new, old in zip(value, items, strict=True)]

    def _for(self, node: ast.For) -> None:
        call, target = node.iter, node.target
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "range" and not call.keywords):
            self.values.reject(node, "loop over a range")
        bounds = [to_number(self.values.evaluate(argument)) for argument in call.args]
        first, end, step = [0, *bounds, 1] if len(bounds) == 1 else [*bounds, 1][:3]
        if is_term(step) or step == 0:
            self.values.reject(node, "give the range a step that is a whole number")
        self._loop(
            node,
            lambda turn: first + turn * step < end if step > 0 else first + turn * step > end,
            lambda turn: self._assign(target, first + turn * step),
        )

    def _loop(
        self, node: ast.While | ast.For, goes_on: Callable[[int], Truth], begin: Callable[[int], None] | None
    ) -> None:
        """Repeat the body under the condition that Python does, until it cannot go on."""
        self._left.append([False, False])
        reached, left, ended = self.values.reached, self._left[-1], False
        turn = terms = 0
        while True:
            condition = goes_on(turn)
            ended = any_of(ended, all_of(self.values.reached, negate(condition)))
            self.values.reached = all_of(self.values.reached, condition)
            if not may_hold(self.values.reached):
                break
            terms += is_term(self.values.reached)
            if terms > MAX_ITERATIONS:
                self.values.reject(node, f"it may go on more than {MAX_ITERATIONS} times; bound the range by a field")
            if begin is not None:
                begin(turn)
            self.execute(node.body)
            self.values.reached, left[1] = any_of(self.values.reached, left[1]), False
            turn += 1
        self._left.pop()
        self.values.reached = any_of(ended, left[0])
        if not may_hold(all_of(reached, negate(self.values.reached))):  # the body never returns
            self.values.reached = reached


def _locate(tree: ast.expr, node: ast.AST) -> ast.expr:
    """Give all parts of an expression the line of a node."""
    for part in ast.walk(tree):
        ast.copy_location(part, node)
    return tree
