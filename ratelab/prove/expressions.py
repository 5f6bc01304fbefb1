"""Expressions of a step, evaluated on terms under the condition that Python reaches them."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence
from inspect import getattr_static
from typing import Any, NamedTuple, NoReturn

import z3

from ratelab.errors import InputError
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
    run_solver,
    same,
    to_number,
    to_truth,
)

MAX_TABLE_ITEMS = 64
"""Items of a field that is looked up at a place which is not known."""

MAX_CHECK_EFFORT = 1_000_000
"""Steps of the solver in which it may exclude a condition, which otherwise may hold; the same in each run."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Truth]] = {
    ast.Lt: lambda left, right: to_number(left) < to_number(right),
    ast.LtE: lambda left, right: to_number(left) <= to_number(right),
    ast.Gt: lambda left, right: to_number(left) > to_number(right),
    ast.GtE: lambda left, right: to_number(left) >= to_number(right),
    ast.Eq: same,
    ast.NotEq: lambda left, right: negate(same(left, right)),
}


class StepFault(NamedTuple):
    """A condition under which a step would raise an exception in Python."""

    condition: Truth
    line: int
    reason: str


class Evaluator:
    """The names of a method with their values, and the condition under which Python reaches the current place."""

    def __init__(self, fields: object, file: str, known_globals: dict[str, Any], names: dict[str, Any]) -> None:
        self._fields, self._file, self._globals = fields, file, known_globals
        self.names = names
        self.known: dict[str, Truth] = dict.fromkeys(names, True)
        """The condition under which a name has a value."""
        self.reached: Truth = True
        self.faults: list[StepFault] = []

    def error(self, node: Any, problem: str) -> InputError:
        """Return the error that names the line of a node."""
        return InputError(f"{self._file}:{node.lineno}: {problem}")

    def reject(
        self, node: ast.AST, remedy: str = "use whole numbers, +, -, *, //, %, min, max, abs and len"
    ) -> NoReturn:
        """Raise the error for a node that is not plain integer arithmetic."""
        raise self.error(node, f"`{ast.unparse(node).splitlines()[0]}` cannot be proved: {remedy}")

    def add_fault(self, condition: Truth, node: Any, reason: str) -> None:
        """Note that Python would raise an exception here under a condition."""
        happens = all_of(self.reached, condition)
        if may_hold(happens):
            self.faults.append(StepFault(happens, node.lineno, reason))

    def branch(self, condition: Truth, *branches: Callable[[], Any]) -> list[Any]:
        """Run two branches, each as far as it is reached; return their results."""
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

    def evaluate(self, node: ast.expr) -> Any:
        """Return the value of an expression: a term, a list of them, or a field."""
        match node:
            case ast.Constant(value=int()):
                return node.value
            case ast.Name():
                return self._name(node)
            case ast.Attribute():
                return self._field(node)
            case ast.Tuple() | ast.List():
                return [self.evaluate(item) for item in node.elts]
            case ast.Subscript():
                return self._item(node)
            case ast.BinOp():
                return self.operate(node)
            case ast.UnaryOp(op=ast.USub()):
                return -self.number(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.number(node.operand)
            case ast.UnaryOp(op=ast.Not()):
                return negate(to_truth(self.evaluate(node.operand)))
            case ast.Compare():
                return self._compare(node)
            case ast.BoolOp():
                return self._combine(node.op, node.values)
            case ast.IfExp():
                condition = to_truth(self.evaluate(node.test))
                chosen = self.branch(condition, lambda: self.evaluate(node.body), lambda: self.evaluate(node.orelse))
                return choose(condition, *chosen) if None not in chosen else chosen[chosen[0] is None]
            case ast.Call():
                return self._call(node)
        remedy = "use whole numbers" if isinstance(node, ast.Constant) else None
        return self.reject(node, remedy) if remedy else self.reject(node)

    def number(self, node: ast.expr) -> Number:
        """Return the value of an expression that is a number."""
        value = self.evaluate(node)
        if isinstance(value, (list, tuple)):
            self.reject(node)
        return to_number(value)

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            if node.id in self.known:
                self.add_fault(negate(self.known[node.id]), node, f"`{node.id}` has no value")
            return self.names[node.id]
        value = self._globals.get(node.id, getattr(builtins, node.id, None))
        if not isinstance(value, int):
            self.reject(node, "assign the name a whole number first")
        return value

    def _field(self, node: ast.Attribute) -> Any:
        """Return a field of the algorithm: a whole number, or a table of them."""
        if not (isinstance(node.value, ast.Name) and self.names.get(node.value.id) is self._fields):
            self.reject(node)
        is_computed = isinstance(getattr_static(type(self._fields), node.attr, None), property)
        value = None if is_computed else getattr(self._fields, node.attr, None)
        items = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(item, int) for item in items):
            self.reject(node, "a step may use fields that are whole numbers or tuples of them")
        return value

    def _item(self, node: ast.Subscript) -> Number:
        items = self.evaluate(node.value)
        if isinstance(node.slice, ast.Slice) or not isinstance(items, (list, tuple)):
            self.reject(node, "read one item of the state at a time")
        place = self.find_place(node, items)
        if not is_term(place):
            return items[place]
        if isinstance(items, tuple) and len(items) > MAX_TABLE_ITEMS:
            self.reject(
                node,
                f"it has {len(items)} items, at most {MAX_TABLE_ITEMS} can be searched; use a shorter one",
            )
        value = items[-1]
        for number in range(len(items) - 1):
            value = choose(place == number, items[number], value)
        return value

    def find_place(self, node: ast.Subscript, items: Sequence[Any]) -> Number:
        """Return the place from 0 that an index denotes, and note that it may be out of range."""
        index, size = self.number(node.slice), len(items)
        if not is_term(index):
            if not -size <= index < size:
                self.add_fault(True, node, "index out of range")
                return 0
            return index % size
        self.add_fault(any_of(index < -size, index >= size), node, "index out of range")
        return index if not may_hold(all_of(self.reached, index < 0)) else choose(index < 0, index + size, index)

    def operate(self, node: ast.BinOp) -> Any:
        """Return the result of an operation on two operands."""
        left, right = self.evaluate(node.left), self.evaluate(node.right)
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
                self.reject(node, "use //, since / gives a fraction")
        return self.reject(node)

    def _concatenate(self, node: ast.BinOp, left: Any, right: Any) -> list[Any]:
        """Return the items of a list followed by others, or repeated, as a `start` may write them."""
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(node.op, ast.Mult) and isinstance(left, list) and isinstance(right, int):
            return left * right
        return self.reject(node)

    def _compare(self, node: ast.Compare) -> Truth:
        terms, left, reached = list[Truth](), self.number(node.left), self.reached
        for operation, operand in zip(node.ops, node.comparators, strict=True):
            if type(operation) not in _COMPARISONS:
                self.reject(node)
            right = self.number(operand)
            terms.append(_COMPARISONS[type(operation)](left, right))
            self.reached, left = all_of(self.reached, terms[-1]), right  # the next operand may not be evaluated
        self.reached = reached
        return all_of(*terms)

    def _combine(self, operation: ast.boolop, values: Sequence[ast.expr]) -> Any:
        """Return the value of `and` or `or`, whose later operands count only if the earlier ones do not decide."""
        first, *rest = values
        left = self.evaluate(first)
        if not rest:
            return left
        decided = to_truth(left) if isinstance(operation, ast.Or) else negate(to_truth(left))
        reached, self.reached = self.reached, all_of(self.reached, negate(decided))
        right = self._combine(operation, rest) if is_term(self.reached) or self.reached else left
        self.reached = reached
        return choose(decided, left, right)

    def _call(self, node: ast.Call) -> Number:
        name = ast.unparse(node.func)
        known = name in self.names or name in self._globals
        if name not in ("min", "max", "abs", "len", "int", "bool") or node.keywords or known:
            self.reject(node)
        values = [self.evaluate(argument) for argument in node.args]
        if name == "len" and len(values) == 1 and isinstance(values[0], (list, tuple)):
            return len(values[0])
        if any(isinstance(value, (list, tuple)) for value in values) or not values:
            self.reject(node)
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
        return self.reject(node)


def may_hold(condition: Truth) -> bool:
    """Return whether the solver cannot exclude a condition."""
    if not is_term(condition):
        return bool(condition)
    solver = z3.Solver()
    solver.set("rlimit", MAX_CHECK_EFFORT)
    return bool(run_solver(solver, condition) != z3.unsat)
