"""A step of somebody else's, rewritten so that whatever 64 bits cannot hold is noticed.

Python's integers have no end, and it minds an index out of range. So every operation that could go wrong unseen becomes
a call of a function of `integers`, which raises instead, and anything but plain arithmetic is refused.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Container
from inspect import getfile
from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from ratelab.lab.compiled.step_source import function_of, tree_of


class RefusedError(Exception):
    """A step has something that cannot be compiled with certainty; the message says on which line."""


_OPERATIONS = {
    ast.Add: "plus", ast.Sub: "minus", ast.Mult: "times", ast.FloorDiv: "over", ast.Mod: "modulo",
}  # fmt: skip

_HARMLESS = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.If, ast.While, ast.For,
    ast.Break, ast.Continue, ast.Pass, ast.Return, ast.Expr, ast.IfExp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp,
    ast.Tuple, ast.Name, ast.Load, ast.Store, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip

_PREFIX = "_checked_"
"""Of the functions' names in the step, where other names mean something else."""

_CALLED = ("range", "min", "max", "abs", "len")


def rewritten(
    step: Callable[..., Any], fields: Container[str], functions: dict[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """Return `step`, of an algorithm with these `fields`, with its operations replaced by `functions`.

    Raises `RefusedError` for anything but arithmetic on whole numbers, and `OSError` if there is no source.
    """
    if step.__code__.co_freevars or hasattr(step, "__wrapped__"):
        raise RefusedError(f"{getfile(step)}: its step is more than its text says")
    tree = _OverflowChecker(step, fields).visit(tree_of(step))
    return function_of(tree, step, {_PREFIX + name: function for name, function in functions.items()})


class _OverflowChecker(ast.NodeTransformer):
    def __init__(self, step: Callable[..., Any], fields: Container[str]) -> None:
        self._file, self._fields = getfile(step), fields
        self._own, self._known = {*step.__code__.co_varnames}, {**vars(builtins), **step.__globals__}

    def _refuse(self, node: Any, what: str) -> RefusedError:
        return RefusedError(f"{self._file}:{node.lineno}: {what}: only plain arithmetic on whole numbers is compiled")

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _HARMLESS):
            raise self._refuse(node, f"it has `{ast.unparse(node).splitlines()[0]}`")
        return super().generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.decorator_list or node.args.vararg or node.args.kwarg or node.args.defaults:
            raise self._refuse(node, "it is not a plain method")
        self._self, self._state = (argument.arg for argument in node.args.args[:2])
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, int) or abs(node.value) >= 2**63:
            raise self._refuse(node, f"it has `{ast.unparse(node)}`")
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self._own:
            return node
        if node.id not in self._known:
            raise RefusedError(f"{self._file}:{node.lineno}: `{node.id}` is not defined")
        if not isinstance(self._known[node.id], int) or abs(self._known[node.id]) >= 2**63:
            raise self._refuse(node, f"it has `{node.id}`")
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not (isinstance(node.value, ast.Name) and node.value.id == self._self):
            raise self._refuse(node, f"it has `{ast.unparse(node)}`")
        if node.attr not in self._fields:
            raise self._refuse(node, f"it has `{ast.unparse(node)}`, which is no field of its dataclass")
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func) not in _CALLED or node.keywords:
            raise self._refuse(node, f"it calls `{ast.unparse(node)}`")
        if ast.unparse(node.func) == "len" and ast.unparse(node.args[0]) != self._state:
            raise self._refuse(node, f"it calls `{ast.unparse(node)}`")
        node.args = [self.visit(argument) for argument in node.args]
        return _call(node, "absolute", *node.args) if ast.unparse(node.func) == "abs" else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if type(node.op) not in _OPERATIONS:
            raise self._refuse(node, f"it has `{ast.unparse(node)}`")
        return _call(node, _OPERATIONS[type(node.op)], self.visit(node.left), self.visit(node.right))

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if any(isinstance(operation, ast.Is | ast.IsNot) for operation in node.ops):
            raise self._refuse(node, f"it has `{ast.unparse(node)}`")
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.Invert):
            raise self._refuse(node, f"it has `{ast.unparse(node)}`")
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.USub):
            return _call(node, "minus", ast.Constant(0), operand)
        node.operand = operand
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if not (isinstance(node.value, ast.Name) and node.value.id == self._state):
            raise self._refuse(node, f"it has `{ast.unparse(node)}`")
        size = _call(node, "size", node.value)
        return ast.copy_location(
            ast.Subscript(node.value, _call(node, "place", size, self.visit(node.slice)), node.ctx), node
        )

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        now = ast.parse(ast.unparse(node.target), mode="eval").body
        for part in ast.walk(now):
            ast.copy_location(part, node)
        changed = ast.copy_location(ast.BinOp(now, node.op, node.value), node)
        return self.generic_visit(ast.copy_location(ast.Assign([node.target], changed), node))

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if node.value is None:
            raise self._refuse(node, "it returns nothing")
        return ast.copy_location(ast.Return(_call(node, "row", self.visit(node.value))), node)


def _call(where: ast.AST, name: str, *arguments: Any) -> ast.Call:
    return ast.copy_location(
        ast.Call(ast.copy_location(ast.Name(_PREFIX + name, ast.Load()), where), [*arguments], []), where
    )


def plus(a: int, b: int) -> int:
    """Return a + b."""
    return a + b


def minus(a: int, b: int) -> int:
    """Return a - b."""
    return a - b


def times(a: int, b: int) -> int:
    """Return a * b."""
    return a * b


def over(a: int, b: int) -> int:
    """Return a // b."""
    return a // b


def modulo(a: int, b: int) -> int:
    """Return a % b."""
    return a % b


def absolute(a: int) -> int:
    """Return abs(a)."""
    return abs(a)


def place(size: int, index: int) -> int:
    """Return where in a list of `size` the element at `index` is."""
    return range(size)[index]


def size(state: Any) -> int:
    """Return how many numbers a state has."""
    return len(state)


def row(made: Any) -> Any:
    """Return what a step returns if it is as it should be."""
    return made


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (plus, minus, times, over, modulo, absolute, place, row, size)
}

_LEAST = -(2**63)
_ABOUT_2_63 = 9.223372036854e18  # a product that floats find larger may be too large


def _whole(*kinds: Any) -> None:
    for kind in kinds:
        if not isinstance(kind, types.Boolean | types.Integer) or kind == types.uint64:
            raise TypingError(f"it reckons with a number of the type {kind}, and only whole numbers are compiled")


@overload(plus)
def _plus(a: Any, b: Any) -> Callable[..., Any]:
    _whole(a, b)

    def checked(a: Any, b: Any) -> Any:
        found = a + b
        if ((found ^ a) & (found ^ b)) < 0:
            raise OverflowError
        return found

    return checked


@overload(minus)
def _minus(a: Any, b: Any) -> Callable[..., Any]:
    _whole(a, b)

    def checked(a: Any, b: Any) -> Any:
        found = a - b
        if ((a ^ b) & (a ^ found)) < 0:
            raise OverflowError
        return found

    return checked


@overload(times)
def _times(a: Any, b: Any) -> Callable[..., Any]:
    _whole(a, b)

    def checked(a: Any, b: Any) -> Any:
        if abs(float(a) * float(b)) > _ABOUT_2_63:
            raise OverflowError
        return a * b

    return checked


@overload(over)
def _over(a: Any, b: Any) -> Callable[..., Any]:
    _whole(a, b)

    def checked(a: Any, b: Any) -> Any:
        if b == 0:
            raise ZeroDivisionError
        if b == -1 and a == _LEAST:
            raise OverflowError
        return a // b

    return checked


@overload(modulo)
def _modulo(a: Any, b: Any) -> Callable[..., Any]:
    _whole(a, b)

    def checked(a: Any, b: Any) -> Any:
        if b == 0:
            raise ZeroDivisionError
        return a % b

    return checked


@overload(absolute)
def _absolute(a: Any) -> Callable[..., Any]:
    _whole(a)

    def checked(a: Any) -> Any:
        if a == _LEAST:
            raise OverflowError
        return abs(a)

    return checked


@overload(place)
def _place(size: Any, index: Any) -> Callable[..., Any]:
    _whole(size, index)

    def checked(size: Any, index: Any) -> Any:
        if not -size <= index < size:
            raise IndexError
        return index if index >= 0 else index + size

    return checked


@overload(size)
def _size(state: Any) -> Callable[..., Any]:  # noqa: ARG001  (Numba asks for the name)
    def checked(state: Any) -> Any:
        return len(state)

    return checked


@overload(row)
def _row(made: Any) -> Callable[..., Any]:
    if not isinstance(made, types.BaseTuple) or len(made) != 5:
        raise TypingError("a step returns five numbers")
    _whole(*made)  # type: ignore[misc]

    def checked(made: Any) -> Any:
        _, remaining, retry_after, reset_after, delay = made
        if min(remaining, retry_after, reset_after, delay) < 0:
            raise ValueError
        return made

    return checked
