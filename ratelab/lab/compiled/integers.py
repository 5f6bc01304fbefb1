"""Arithmetic as Python does it, or not at all: compiled functions that raise where 64 bits do not hold the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import types
from numba.core.errors import TypingError
from numba.extending import overload


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
