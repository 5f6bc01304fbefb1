"""Translation of a step from its source into terms, by running it on terms.

A statement runs under a condition, the one under which Python would reach it: an assignment keeps the former value
elsewhere. Both branches of an `if` are run, and a loop is repeated as long as the solver finds that it may go on. What
Python would answer with an exception, such as a division by 0, becomes a fault with the condition under which it
happens.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence
from inspect import getfile
from typing import Any, NamedTuple, NoReturn

import z3

from ratelab.errors import InputError
from ratelab.lab.step_source import parse_step
from ratelab.limiter import ROW_FIELDS, Algorithm
from ratelab.prove.terms import (
    Number,
    Truth,
    all_of,
    any_of,
    choose,
    divide,
    greatest,
    is_term,
    least,
    modulo,
    negate,
    same,
    to_number,
    to_truth,
)

MAX_ITERATIONS = 64
"""The number of times that a loop may go on whose end depends on the state, the time or the cost."""

MAX_TABLE_ITEMS = 64
"""Items of a field that is looked up at a place which is not known."""

LOOP_TIMEOUT_MS = 200

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Truth]] = {
    ast.Lt: lambda left, right: to_number(left) < to_number(right),
    ast.LtE: lambda left, right: to_number(left) <= to_number(right),
    ast.Gt: lambda left, right: to_number(left) > to_number(right),
    ast.GtE: lambda left, right: to_number(left) >= to_number(right),
    ast.Eq: same,
    ast.NotEq: lambda left, right: negate(same(left, right)),
}


class Fault(NamedTuple):
    """A condition under which a step would raise an exception in Python."""

    condition: Truth
    line: int
    reason: str


class Stepped(NamedTuple):
    """What a step returns, the state that it leaves, and its faults."""

    row: tuple[Any, ...]
    state: list[Number]
    faults: list[Fault]


class Translator:
    """The `start` and the `step` of an algorithm, for states, times and costs that are terms."""

    def __init__(self, algorithm: Algorithm) -> None:
        """Read the source; raise `InputError` unless there is one."""
        self.algorithm = algorithm
        self._methods = {name: _read(getattr(type(algorithm), name)) for name in ("start", "step")}

    def start(self, now: Number) -> list[Number]:
        """Return the state of a new key."""
        state = self._run("start", {"now": now}, []).result
        return [*state]

    def step(self, state: Sequence[Number], now: Number, cost: Number) -> Stepped:
        """Return the result of a step; `state` is left as it is."""
        after = [*state]
        run = self._run("step", {"now": now, "cost": cost}, after)
        if len(run.result) != len(ROW_FIELDS):
            raise run.error(self._methods["step"][0], f"step() must return {', '.join(ROW_FIELDS)}")
        return Stepped((to_truth(run.result[0]), *map(to_number, run.result[1:])), after, run.faults)

    def _run(self, method: str, values: dict[str, Number], state: list[Number]) -> _Run:
        definition, function = self._methods[method]
        names = [argument.arg for argument in definition.args.args]
        given = [self, *([state] if method == "step" else []), *values.values()]
        run = _Run(self, function, dict(zip(names, given, strict=True)))
        run.execute(definition.body)
        if run.result is None:
            raise run.error(definition, f"{method}() returns nothing: return its result")
        run.add_fault(run.reached, definition, f"{method}() ends without a result")
        return run


def _read(function: Any) -> tuple[ast.FunctionDef, Any]:
    function = getattr(function, "__func__", function)
    if hasattr(function, "__wrapped__") or getattr(function, "__code__", None) is None:
        raise InputError(f"{function!r} cannot be proved: its source is not a plain method; remove the decorator")
    try:
        return parse_step(function), function
    except (OSError, TypeError, AssertionError):
        place = f"{function.__qualname__} in {getfile(function)}"
        raise InputError(f"{place} cannot be proved: there is no source; save the class in a file") from None


class _Run:
    """One execution of a method on terms."""

    def __init__(self, translator: Translator, function: Any, names: dict[str, Any]) -> None:
        self._translator, self._names = translator, names
        self._file, self._globals = getfile(function), function.__globals__
        self._known = dict.fromkeys(names, True)  # the condition under which a name has a value
        self._left: list[list[Truth]] = []  # by loop: the conditions of `break`, and of `continue`
        self.reached: Truth = True
        self.result: Any = None
        self.faults: list[Fault] = []

    def error(self, node: Any, problem: str) -> InputError:
        """Return the error that names the line of a node."""
        return InputError(f"{self._file}:{node.lineno}: {problem}")

    def _reject(self, node: ast.AST, remedy: str = "use whole numbers, +, -, *, //, %, min, max, abs and len") -> NoReturn:
        raise self.error(node, f"`{ast.unparse(node).splitlines()[0]}` cannot be proved: {remedy}")

    def add_fault(self, condition: Truth, node: Any, reason: str) -> None:
        """Note that Python would raise an exception here under a condition."""
        happens = all_of(self.reached, condition)
        if _may_hold(happens):
            self.faults.append(Fault(happens, node.lineno, reason))

    # --- statements

    def execute(self, statements: Sequence[ast.stmt]) -> None:
        """Run statements as far as they are reached."""
        for statement in statements:
            if is_term(self.reached) or self.reached:
                self._execute(statement)

    def _execute(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign():
                value = self._evaluate(node.value)
                for target in node.targets:
                    self._assign(target, value)
            case ast.AnnAssign(value=ast.expr()):
                self._assign(node.target, self._evaluate(node.value))
            case ast.AugAssign():
                target = ast.parse(ast.unparse(node.target), mode="eval").body
                value = ast.copy_location(ast.BinOp(_locate(target, node), node.op, node.value), node)
                self._assign(node.target, self._evaluate(value))
            case ast.If():
                test = to_truth(self._evaluate(node.test))
                self._branch(test, lambda: self.execute(node.body), lambda: self.execute(node.orelse))
            case ast.While() if not node.orelse:
                self._loop(node, lambda _: to_truth(self._evaluate(node.test)), None)
            case ast.For(target=ast.Name()) if not node.orelse:
                self._for(node)
            case ast.Break() | ast.Continue():
                leaves = self._left[-1]
                place = int(isinstance(node, ast.Continue))
                leaves[place] = any_of(leaves[place], self.reached)
                self.reached = False
            case ast.Return(value=ast.Tuple() | ast.List() | ast.BinOp() | ast.Name()):
                self._return(node)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call()) if ast.unparse(node.value.func) == "self.step":
                self._call_step(node.value)
            case _:
                self._reject(node)

    def _return(self, node: ast.Return) -> None:
        assert node.value is not None  # noqa: S101  (for mypy)
        value = self._evaluate(node.value)
        if not isinstance(value, list):
            self._reject(node, "return the five fields, or the state, as a display such as [a, b]")
        if self.result is None:
            self.result = value
        elif len(self.result) != len(value):
            self._reject(node, "return as many values everywhere")
        else:
            self.result = [choose(self.reached, *pair) for pair in zip(value, self.result, strict=True)]
        self.reached = False

    def _call_step(self, node: ast.Call) -> None:
        """Run `self.step(state, now, cost)`, as a `start` may."""
        state, now, cost = map(self._evaluate, node.args)
        done = self._translator.step(state, now, cost)
        self.faults += [fault._replace(condition=all_of(self.reached, fault.condition)) for fault in done.faults]
        state[:] = [choose(self.reached, *pair) for pair in zip(done.state, state, strict=True)]

    def _assign(self, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name():
                known = self._known.get(target.id, False)
                if self.reached is not True and not (is_term(value) or isinstance(value, int)):
                    self._reject(target, "assign it on every path")
                if known is not False and self.reached is not True:
                    value = choose(self.reached, value, self._names[target.id])
                self._names[target.id] = value
                self._known[target.id] = any_of(known, self.reached)
            case ast.Tuple() | ast.List():
                if not isinstance(value, list) or len(value) != len(target.elts):
                    self._reject(target, "assign as many values as there are names")
                for one, part in zip(target.elts, value, strict=True):
                    self._assign(one, part)
            case ast.Subscript(value=ast.Name()):
                items = self._evaluate(target.value)
                if not isinstance(items, list):
                    self._reject(target, "only the state can be changed")
                place = self._place(target, items)
                for number in [place] if not is_term(place) else range(len(items)):
                    here = all_of(self.reached, place == number)
                    items[number] = choose(here, to_number(value), items[number])
            case _:
                self._reject(target)

    def _branch(self, condition: Truth, *branches: Callable[[], Any]) -> list[Any]:
        """Run two branches, each as far as it is reached; return what they return."""
        reached, returned = self.reached, []
        entries = [all_of(reached, condition), all_of(reached, negate(condition))]
        exits = list[Truth]()
        for entry, branch in zip(entries, branches, strict=True):
            self.reached = entry
            returned.append(branch() if is_term(entry) or entry else None)
            exits.append(self.reached)
        left = [entry is not end for entry, end in zip(entries, exits, strict=True)]
        self.reached = any_of(*exits) if any(left) else reached
        return returned

    def _for(self, node: ast.For) -> None:
        call, target = node.iter, node.target
        if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "range" and not call.keywords):
            self._reject(node, "loop over a range")
        bounds = [to_number(self._evaluate(argument)) for argument in call.args]
        first, end, step = [0, *bounds, 1] if len(bounds) == 1 else [*bounds, 1][:3]
        if is_term(step) or step == 0:
            self._reject(node, "give the range a step that is a whole number")
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
        reached, left, ended = self.reached, self._left[-1], False
        turn = terms = 0
        while True:
            condition = goes_on(turn)
            ended = any_of(ended, all_of(self.reached, negate(condition)))
            self.reached = all_of(self.reached, condition)
            if not (is_term(self.reached) or self.reached) or (is_term(self.reached) and not _may_hold(self.reached)):
                break
            terms += is_term(self.reached)
            if terms > MAX_ITERATIONS:
                self._reject(node, f"it may go on more than {MAX_ITERATIONS} times; bound the range by a field")
            if begin is not None:
                begin(turn)
            self.execute(node.body)
            self.reached, left[1] = any_of(self.reached, left[1]), False
            turn += 1
        self._left.pop()
        self.reached = any_of(ended, left[0])
        if not _may_hold(all_of(reached, negate(self.reached))):  # the body never returns
            self.reached = reached

    # --- expressions

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int()):
                return node.value
            case ast.Name():
                return self._name(node)
            case ast.Attribute():
                return self._field(node)
            case ast.Tuple() | ast.List():
                return [self._evaluate(item) for item in node.elts]
            case ast.Subscript():
                return self._item(node)
            case ast.BinOp():
                return self._operate(node)
            case ast.UnaryOp(op=ast.USub()):
                return -self._number(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self._number(node.operand)
            case ast.UnaryOp(op=ast.Not()):
                return negate(to_truth(self._evaluate(node.operand)))
            case ast.Compare():
                return self._compare(node)
            case ast.BoolOp():
                return self._combine(node.op, node.values)
            case ast.IfExp():
                condition = to_truth(self._evaluate(node.test))
                chosen = self._branch(
                    condition, lambda: self._evaluate(node.body), lambda: self._evaluate(node.orelse)
                )
                return choose(condition, *chosen) if None not in chosen else chosen[chosen[0] is None]
            case ast.Call():
                return self._call(node)
        remedy = "use whole numbers" if isinstance(node, ast.Constant) else None
        return self._reject(node, remedy) if remedy else self._reject(node)

    def _number(self, node: ast.expr) -> Number:
        value = self._evaluate(node)
        if isinstance(value, (list, tuple)):
            self._reject(node)
        return to_number(value)

    def _name(self, node: ast.Name) -> Any:
        if node.id in self._names:
            if node.id in self._known:
                self.add_fault(negate(self._known[node.id]), node, f"`{node.id}` has no value")
            return self._names[node.id]
        value = self._globals.get(node.id, getattr(builtins, node.id, None))
        if not isinstance(value, int):
            self._reject(node, "assign the name a whole number first")
        return value

    def _field(self, node: ast.Attribute) -> Any:
        """Return a field of the algorithm: a whole number, or a table of them."""
        if not (isinstance(node.value, ast.Name) and self._names.get(node.value.id) is self._translator):
            self._reject(node)
        value = getattr(self._translator.algorithm, node.attr, None)
        items = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(item, int) for item in items):
            self._reject(node, "a step may use fields that are whole numbers or tuples of them")
        return value

    def _item(self, node: ast.Subscript) -> Number:
        items = self._evaluate(node.value)
        if isinstance(node.slice, ast.Slice) or not isinstance(items, (list, tuple)):
            self._reject(node, "read one item of the state at a time")
        place = self._place(node, items)
        if not is_term(place):
            return items[place]
        if isinstance(items, tuple) and len(items) > MAX_TABLE_ITEMS:
            self._reject(node, f"a table of {len(items)} items is too long to search; at most {MAX_TABLE_ITEMS} are")
        value = items[-1]
        for number in range(len(items) - 1):
            value = choose(place == number, items[number], value)
        return value

    def _place(self, node: ast.Subscript, items: Sequence[Any]) -> Number:
        """Return the place from 0 that an index denotes, and note that it may be out of range."""
        index, size = self._number(node.slice), len(items)
        if not is_term(index):
            if not -size <= index < size:
                self.add_fault(True, node, "index out of range")
                return 0
            return index % size
        self.add_fault(any_of(index < -size, index >= size), node, "index out of range")
        return index if not _may_hold(all_of(self.reached, index < 0)) else choose(index < 0, index + size, index)

    def _operate(self, node: ast.BinOp) -> Any:
        left, right = self._evaluate(node.left), self._evaluate(node.right)
        if isinstance(left, list) or isinstance(right, list):
            return self._concatenate(node, left, right)
        left, right = to_number(left), to_number(right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.FloorDiv() | ast.Mod():
                self.add_fault(right == 0, node, "division by zero")
                if not is_term(right) and right == 0:
                    return 0
                return divide(left, right) if isinstance(node.op, ast.FloorDiv) else modulo(left, right)
            case ast.Div():
                self._reject(node, "use //, since / gives a fraction")
        return self._reject(node)

    def _concatenate(self, node: ast.BinOp, left: Any, right: Any) -> list[Any]:
        """Return the items of a list followed by others, or repeated, as a `start` may write them."""
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(node.op, ast.Mult) and isinstance(left, list) and isinstance(right, int):
            return left * right
        return self._reject(node)

    def _compare(self, node: ast.Compare) -> Truth:
        terms, left = list[Truth](), self._number(node.left)
        for operation, operand in zip(node.ops, node.comparators, strict=True):
            if type(operation) not in _COMPARISONS:
                self._reject(node)
            right = self._number(operand)
            terms.append(_COMPARISONS[type(operation)](left, right))
            left = right
        return all_of(*terms)

    def _combine(self, operation: ast.boolop, values: Sequence[ast.expr]) -> Any:
        """Return the value of `and` or `or`, whose later operands count only if the earlier ones do not decide."""
        first, *rest = values
        left = self._evaluate(first)
        if not rest:
            return left
        decided = to_truth(left) if isinstance(operation, ast.Or) else negate(to_truth(left))
        reached, self.reached = self.reached, all_of(self.reached, negate(decided))
        right = self._combine(operation, rest) if is_term(self.reached) or self.reached else left
        self.reached = reached
        return choose(decided, left, right)

    def _call(self, node: ast.Call) -> Number:
        name = ast.unparse(node.func)
        if name not in ("min", "max", "abs", "len", "int", "bool") or node.keywords or name in self._names:
            self._reject(node)
        values = [self._evaluate(argument) for argument in node.args]
        if name == "len" and len(values) == 1 and isinstance(values[0], (list, tuple)):
            return len(values[0])
        if any(isinstance(value, (list, tuple)) for value in values) or not values:
            self._reject(node)
        numbers = [to_number(value) for value in values]
        match name, len(numbers):
            case "min", _:
                return least(*numbers)
            case "max", _:
                return greatest(*numbers)
            case "abs", 1:
                return choose(numbers[0] < 0, -numbers[0], numbers[0])
            case "int", 1:
                return numbers[0]
            case "bool", 1:
                return to_truth(numbers[0])
        return self._reject(node)


def _locate(tree: ast.expr, node: ast.AST) -> ast.expr:
    """Give all parts of an expression the line of a node."""
    for part in ast.walk(tree):
        ast.copy_location(part, node)
    return tree


def _may_hold(condition: Truth) -> bool:
    """Return whether the solver cannot exclude a condition."""
    if not is_term(condition):
        return bool(condition)
    solver = z3.Solver()
    solver.set("timeout", LOOP_TIMEOUT_MS)
    return bool(solver.check(condition) != z3.unsat)
