"""Terms of integers and truth values: plain Python values where they are known, and terms of Z3 otherwise.

A function of this module returns a Python value for Python values. So a formula of terms is also an ordinary function
of numbers, and a counterexample can be checked by the very formula that it refutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import z3

Number = Any
"""A Python integer or an integer term; division and comparison have the meaning that they have in Python."""

Truth = Any
"""A Python truth value or a term of one."""


def is_term(value: object) -> bool:
    """Return whether a value is a term of Z3."""
    return isinstance(value, z3.ExprRef)


def run_solver(solver: z3.Solver, *assumptions: Truth) -> z3.CheckSatResult:
    """Return the result of a solver; raise `KeyboardInterrupt` at Ctrl-C, which Z3 catches."""
    result = solver.check(*assumptions)
    if result == z3.unknown and solver.reason_unknown() == "interrupted from keyboard":
        raise KeyboardInterrupt
    return result


def to_truth(value: Any) -> Truth:
    """Return whether a number is not 0; a truth value is returned as it is."""
    if not is_term(value):
        return bool(value)
    return value if isinstance(value, z3.BoolRef) else value != 0


def to_number(value: Any) -> Number:
    """Return 1 for true and 0 for false; a number is returned as it is."""
    if isinstance(value, z3.BoolRef):
        return z3.If(value, z3.IntVal(1), z3.IntVal(0))
    return int(value) if isinstance(value, bool) else value


def all_of(*terms: Truth) -> Truth:
    """Return whether all terms are true."""
    rest = [term for term in terms if is_term(term) or not term]
    if any(not is_term(term) for term in rest):
        return False
    return True if not rest else rest[0] if len(rest) == 1 else z3.And(rest)


def any_of(*terms: Truth) -> Truth:
    """Return whether any term is true."""
    rest = [term for term in terms if is_term(term) or term]
    if any(not is_term(term) for term in rest):
        return True
    return False if not rest else rest[0] if len(rest) == 1 else z3.Or(rest)


def negate(term: Truth) -> Truth:
    """Return whether a term is false."""
    return z3.Not(term) if is_term(term) else not term


def implies(condition: Truth, *consequences: Truth) -> Truth:
    """Return whether all consequences are true if the condition is."""
    return any_of(negate(condition), all_of(*consequences))


def same(left: Any, right: Any) -> Truth:
    """Return whether two numbers are equal, or two truth values."""
    if isinstance(left, z3.BoolRef) and isinstance(right, z3.BoolRef):
        return left == right
    return to_number(left) == to_number(right)


def same_each(left: Iterable[Any], right: Iterable[Any]) -> Truth:
    """Return whether the values at each place are equal."""
    return all_of(*(same(*pair) for pair in zip(left, right, strict=True)))


def choose(condition: Truth, then: Any, otherwise: Any) -> Any:
    """Return `then` if the condition is true, else `otherwise`."""
    if not is_term(condition):
        return then if condition else otherwise
    if not is_term(then) and not is_term(otherwise) and then is otherwise:
        return then
    kinds = [isinstance(value, (bool, z3.BoolRef)) for value in (then, otherwise)]
    if all(kinds):
        return any_of(all_of(condition, then), all_of(negate(condition), otherwise))
    if not is_term(then) and not is_term(otherwise):
        then = z3.IntVal(to_number(then))
    return z3.If(condition, to_number(then), to_number(otherwise))


def divide(dividend: Number, divisor: Number) -> Number:
    """Return the quotient, rounded down, of a divisor that is not 0.

    The division of Z3 rounds down only for a positive divisor.
    """
    if not is_term(dividend) and not is_term(divisor):
        return dividend // divisor
    if not is_term(divisor):
        return _term(dividend) / divisor if divisor > 0 else -_term(dividend) / -divisor
    return z3.If(divisor > 0, _term(dividend) / divisor, -_term(dividend) / -divisor)


def modulo(dividend: Number, divisor: Number) -> Number:
    """Return the remainder of `divide`, which has the sign of the divisor."""
    if not is_term(dividend) and not is_term(divisor):
        return dividend % divisor
    if not is_term(divisor):
        return _term(dividend) % divisor if divisor > 0 else -(-_term(dividend) % -divisor)
    return dividend - divisor * divide(dividend, divisor)


def least(*numbers: Number) -> Number:
    """Return the smallest number, and the first of equal ones."""
    return reduce(lambda first, second: choose(second < first, second, first), numbers)


def greatest(*numbers: Number) -> Number:
    """Return the largest number, and the first of equal ones."""
    return reduce(lambda first, second: choose(second > first, second, first), numbers)


def _term(number: Number) -> z3.ArithRef:
    return number if is_term(number) else z3.IntVal(number)
