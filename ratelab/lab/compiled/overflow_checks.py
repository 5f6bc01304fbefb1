"""Checked steps: an error wherever 64-bit arithmetic differs from that of Python.

Integers of Python do not overflow, and an index out of range is an error. So each operation for which machine code
differs becomes a call of a function below, which raises an error. Anything but plain arithmetic is rejected.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Container
from inspect import getfile
from typing import Any

from numba import types
from numba.extending import overload

from ratelab.lab.compiled.intrinsics import TypingError
from ratelab.lab.step_source import UnfitError, define_step, parse_step

_OPERATIONS = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.FloorDiv: "divide", ast.Mod: "modulo",
}  # fmt: skip

_ALLOWED_NODES = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.If, ast.While, ast.For,
    ast.Break, ast.Continue, ast.Pass, ast.Return, ast.Expr, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp,
    ast.Tuple, ast.Name, ast.Load, ast.Store, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip

_PREFIX = "_checked_"
"""Of the names of the functions in the step, whose own names may have another meaning there."""

_ALLOWED_CALLS = ("range", "min", "max", "abs", "len")


def add_checks(
    step: Callable[..., Any], fields: Container[str], functions: dict[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """Return `step`, of an algorithm with these `fields`, with its operations replaced by calls of `functions`.

    Raises `UnfitError` for anything but integer arithmetic, and `OSError` if there is no source.
    """
    if step.__code__.co_freevars or hasattr(step, "__wrapped__"):
        raise UnfitError(f"{getfile(step)}: its step() has a closure or a decorator")
    tree = _OverflowChecker(step, fields).visit(parse_step(step))
    return define_step(tree, step, {_PREFIX + name: function for name, function in functions.items()})


class _OverflowChecker(ast.NodeTransformer):
    def __init__(self, step: Callable[..., Any], fields: Container[str]) -> None:
        self._file, self._fields = getfile(step), fields
        self._locals, self._globals = {*step.__code__.co_varnames}, {**vars(builtins), **step.__globals__}

    def _error(self, node: Any, reason: str) -> UnfitError:
        return UnfitError(f"{self._file}:{node.lineno}: {reason}")

    def _reject(self, node: Any) -> UnfitError:
        text = ast.unparse(node).splitlines()[0]
        return self._error(node, f"`{text}` cannot be compiled: only plain integer arithmetic can")

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _ALLOWED_NODES):
            raise self._reject(node)
        return super().generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.decorator_list or node.args.vararg or node.args.kwarg or node.args.defaults:
            raise self._error(node, "step() is not a plain method")
        self._self, self._state = (argument.arg for argument in node.args.args[:2])
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, int) or abs(node.value) >= 2**63:
            raise self._reject(node)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._locals:
            return node
        if node.id not in self._globals:
            raise self._error(node, f"`{node.id}` is not defined")
        if not isinstance(self._globals[node.id], int) or abs(self._globals[node.id]) >= 2**63:
            raise self._reject(node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not (isinstance(node.value, ast.Name) and node.value.id == self._self):
            raise self._reject(node)
        if node.attr not in self._fields:
            raise self._error(node, f"`{ast.unparse(node)}` is not a field of the dataclass")
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func) not in _ALLOWED_CALLS or node.keywords:
            raise self._reject(node)
        if ast.unparse(node.func) == "len" and ast.unparse(node.args[0]) != self._state:
            raise self._reject(node)
        node.args = [self.visit(argument) for argument in node.args]
        return _call(node, "absolute_value", *node.args) if ast.unparse(node.func) == "abs" else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if type(node.op) not in _OPERATIONS:
            raise self._reject(node)
        return _call(node, _OPERATIONS[type(node.op)], self.visit(node.left), self.visit(node.right))

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if any(isinstance(operation, ast.Is | ast.IsNot) for operation in node.ops):
            raise self._reject(node)
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Invert):
            raise self._reject(node)
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.USub):
            return _call(node, "subtract", ast.Constant(0), operand)
        node.operand = operand
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if not (isinstance(node.value, ast.Name) and node.value.id == self._state):
            raise self._reject(node)
        size = _call(node, "get_size", node.value)
        return ast.copy_location(
            ast.Subscript(node.value, _call(node, "find_place", size, self.visit(node.slice)), node.ctx), node
        )

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        target = ast.parse(ast.unparse(node.target), mode="eval").body
        for part in ast.walk(target):
            ast.copy_location(part, node)
        value = ast.copy_location(ast.BinOp(target, node.op, node.value), node)
        return self.generic_visit(ast.copy_location(ast.Assign([node.target], value), node))

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if node.value is None:
            raise self._error(node, "step() returns nothing")
        return ast.copy_location(ast.Return(_call(node, "check_row", self.visit(node.value))), node)


def _call(replaced: ast.AST, name: str, *arguments: Any) -> ast.Call:
    function = ast.copy_location(ast.Name(_PREFIX + name, ast.Load()), replaced)
    return ast.copy_location(ast.Call(function, [*arguments], []), replaced)


# --- functions that the operations of a step become


def add(a: int, b: int) -> int:
    """Return a + b."""
    return a + b


def subtract(a: int, b: int) -> int:
    """Return a - b."""
    return a - b


def multiply(a: int, b: int) -> int:
    """Return a * b."""
    return a * b


def divide(a: int, b: int) -> int:
    """Return a // b."""
    return a // b


def modulo(a: int, b: int) -> int:
    """Return a % b."""
    return a % b


def absolute_value(a: int) -> int:
    """Return abs(a)."""
    return abs(a)


def find_place(size: int, index: int) -> int:
    """Return the position, from 0, that `index` denotes in a state of this `size`."""
    return range(size)[index]


def get_size(state: Any) -> int:
    """Return the number of integers in a state."""
    return len(state)


def check_row(row: Any) -> Any:
    """Return a row of a step; raise an error if it is not valid."""
    return row


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (add, subtract, multiply, divide, modulo, absolute_value, find_place, check_row, get_size)
}

_MIN_INT64 = -(2**63)
_NEAR_2_63 = 9.223372036854e18  # a product that is larger in floating point may overflow


def _check_integers(*kinds: Any) -> None:
    for kind in kinds:
        if not isinstance(kind, types.Boolean | types.Integer) or kind == types.uint64:
            raise TypingError(f"an operand has the type {kind}, and only integers are compiled")


@overload(add)
def _overload_add(a: Any, b: Any) -> Callable[..., Any]:
    _check_integers(a, b)

    def checked(a: Any, b: Any) -> Any:
        result = a + b
        if ((result ^ a) & (result ^ b)) < 0:
            raise OverflowError
        return result

    return checked


@overload(subtract)
def _overload_subtract(a: Any, b: Any) -> Callable[..., Any]:
    _check_integers(a, b)

    def checked(a: Any, b: Any) -> Any:
        result = a - b
        if ((a ^ b) & (a ^ result)) < 0:
            raise OverflowError
        return result

    return checked


@overload(multiply)
def _overload_multiply(a: Any, b: Any) -> Callable[..., Any]:
    _check_integers(a, b)

    def checked(a: Any, b: Any) -> Any:
        if abs(float(a) * float(b)) > _NEAR_2_63:
            raise OverflowError
        return a * b

    return checked


@overload(divide)
def _overload_divide(a: Any, b: Any) -> Callable[..., Any]:
    _check_integers(a, b)

    def checked(a: Any, b: Any) -> Any:
        if b == 0:
            raise ZeroDivisionError
        if b == -1 and a == _MIN_INT64:
            raise OverflowError
        return a // b

    return checked


@overload(modulo)
def _overload_modulo(a: Any, b: Any) -> Callable[..., Any]:
    _check_integers(a, b)

    def checked(a: Any, b: Any) -> Any:
        if b == 0:
            raise ZeroDivisionError
        return a % b

    return checked


@overload(absolute_value)
def _overload_absolute_value(a: Any) -> Callable[..., Any]:
    _check_integers(a)

    def checked(a: Any) -> Any:
        if a == _MIN_INT64:
            raise OverflowError
        return abs(a)

    return checked


@overload(find_place)
def _overload_find_place(size: Any, index: Any) -> Callable[..., Any]:
    _check_integers(size, index)

    def checked(size: Any, index: Any) -> Any:
        if not -size <= index < size:
            raise IndexError
        return index if index >= 0 else index + size

    return checked


@overload(get_size)
def _overload_get_size(state: Any) -> Callable[..., Any]:  # noqa: ARG001  (Numba passes it by name)
    def checked(state: Any) -> Any:
        return len(state)

    return checked


@overload(check_row)
def _overload_check_row(row: Any) -> Callable[..., Any]:
    if not isinstance(row, types.BaseTuple) or len(row) != 5:
        raise TypingError("a step returns five integers")
    _check_integers(*row)  # type: ignore[misc]

    def checked(row: Any) -> Any:
        _, remaining, retry_after, reset_after, delay = row
        if min(remaining, retry_after, reset_after, delay) < 0:
            raise ValueError
        return row

    return checked
