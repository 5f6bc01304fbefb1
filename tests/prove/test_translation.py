"""Translation of a step into terms: it has the results of Python, and rejects other code than integer arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import z3

from ratelab import ALGORITHMS, InputError, Quota
from ratelab.algorithms import find
from ratelab.prove.terms import divide, is_term, modulo
from ratelab.prove.translate import Translator

EVERY_CONSTRUCT = '''\
from dataclasses import dataclass

OFFSET = 3


@dataclass(frozen=True)
class Mixed:
    name = "mixed"
    burst: int
    table: tuple = (5, 7, 11)

    @classmethod
    def from_quota(cls, quota):
        return cls(quota.burst)

    def start(self, now):
        return [now] + [0, -2] * 1

    def step(self, state, now, cost):
        """Use everything that can be translated."""
        first, second, third = state[0], state[1], state[-1]
        total: int = -(now % -7) + now % 60 // -3 + (first % 5) * 2
        for n in range(4):
            if n == 1:
                continue
            total += n
            if total > 20:
                break
        while total > 10 and not total == 13:
            total -= 6
        left = right = abs(min(first, second, third)) - max(now, OFFSET)
        if cost > 3:
            state[cost % 3] = left
            left += self.table[cost % 3] // (1 + cost)
            if second:
                return cost > 4, left, right, -total, int(3 < cost < 9)
        elif cost == 2 or first < second:
            state[:] = third, state[0], left
        else:
            right = len(state) + len(self.table) + bool(cost)
        for n in range(cost):
            if n >= 3:
                break
            right -= n
        state[1] = third if first == now else state[2] - 1
        return (cost and 1) == 1, left, right, total or 4, +left
'''


Results = Callable[[list[int], int, int], list[Any]]


def translated(translator: Translator, width: int) -> Results:
    """Return the function from a state, a time and a cost to the fields and the state after a step, by its terms."""
    names = [*z3.Ints([f"s{place}" for place in range(width)]), *z3.Ints("now cost")]
    stepped = translator.step(names[:-2], *names[-2:])

    def evaluate(state: list[int], now: int, cost: int) -> list[Any]:
        pairs = [(name, z3.IntVal(value)) for name, value in zip(names, [*state, now, cost], strict=True)]
        return [_evaluate(value, pairs) for value in (*stepped.row, *stepped.state)]

    return evaluate


def _evaluate(value: Any, pairs: list[tuple[Any, Any]]) -> Any:
    if not is_term(value):
        return value
    result = z3.simplify(z3.substitute(value, *pairs))
    return z3.is_true(result) if z3.is_bool(result) else result.as_long()


def hits(window: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield times, some of them back and before 0, and costs."""
    draw, now = random.Random(7), -window
    for _ in range(count):
        now += draw.choice([0, 1, -1, window // 3, window, -window // 2, 5])
        yield now, draw.choice([0, 1, 1, 2, 3, 6])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_terms_have_the_results_of_the_step(name: str) -> None:
    quota = Quota.parse("7/3s", 3)
    algorithm = ALGORITHMS[name].from_quota(quota)
    translator, state = Translator(algorithm), algorithm.start(-quota.window)
    evaluate = translated(translator, len(state))
    assert translator.start(-quota.window) == state
    for now, cost in hits(quota.window, 12 if name == "sliding-log" else 40):
        before = list(state)
        row = algorithm.step(state, now, cost)
        assert evaluate(before, now, cost) == [*row, *state]
        assert translator.step(before, now, cost)[:2] == (row, state), "numbers are steps of Python"


def test_every_construct_has_the_results_of_python(tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(EVERY_CONSTRUCT)
    algorithm = find(f"{tmp_path / 'mixed.py'}:Mixed").from_quota(Quota.parse("2/s", 5))
    evaluate, draw = translated(Translator(algorithm), 3), random.Random(3)
    for _ in range(25):
        state = [draw.randrange(-9, 9) for _ in range(3)]
        now, cost = draw.choice([state[0], draw.randrange(-30, 30)]), draw.randrange(12)
        before = list(state)
        row = algorithm.step(state, now, cost)
        assert evaluate(before, now, cost) == [*row, *state]


@pytest.mark.parametrize("divisor", [-7, -1, 1, 5])
def test_division_rounds_down_as_in_python(divisor: int) -> None:
    dividend, by = z3.Ints("dividend by")
    for number in range(-15, 16):
        pairs = [(dividend, z3.IntVal(number)), (by, z3.IntVal(divisor))]
        for quotient, rest in (
            (divide(dividend, divisor), modulo(dividend, divisor)),
            (divide(dividend, by), modulo(dividend, by)),
        ):
            assert [_evaluate(quotient, pairs), _evaluate(rest, pairs)] == [number // divisor, number % divisor]


REJECTED = {
    "cost / 2": "use //",
    "cost * 0.5": "use whole numbers",
    "cost ** 2": "use whole numbers, +, -",
    "state[0:1]": "read one item of the state",
    "sorted(state)": "min, max, abs and len",
    "state.copy()": "min, max, abs and len",
    "cost in state": "use whole numbers",
    "self.step": "a step may use fields that are whole numbers",
    "unknown": "assign the name a whole number first",
    "[x for x in state]": "use whole numbers",
}


SHORT = """\
class Short:
    name = "short"

    def start(self, now):
        return [now]

    def step(self, state, now, cost):
        state[0] = now
        return cost > 3, EXPRESSION, 0, 0, 0
"""


@pytest.mark.parametrize(("expression", "remedy"), REJECTED.items(), ids=REJECTED.keys())
def test_an_error_names_line_construct_and_remedy(expression: str, remedy: str, tmp_path: Path) -> None:
    message = reject(tmp_path / "short.py", "EXPRESSION", expression)
    assert message.startswith(f"{tmp_path / 'short.py'}:9: `")
    assert " cannot be proved: " in message
    assert remedy in message


def reject(path: Path, old: str, new: str) -> str:
    """Return the error of translating the short step with `new` in place of `old`."""
    path.write_text(SHORT.replace(old, new))
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), path, "exec"), names)  # noqa: S102  (source of this file)
    with pytest.raises(InputError) as error:
        Translator(names["Short"]()).step([0], z3.Int("now"), z3.Int("cost"))
    return str(error.value)


def test_an_endless_loop_and_other_statements_are_rejected(tmp_path: Path) -> None:
    loop = "while now > 0:\n            now -= 1\n        state[0] = now"
    assert "may go on more than 64 times" in reject(tmp_path / "short.py", "state[0] = now", loop)
    for statement in (
        "del state[0]",
        "raise ValueError",
        "state.append(now)",
        "state[:1] = [now]",
        "for now in state: pass",
        "state = []",
    ):
        assert " cannot be proved: " in reject(
            tmp_path / "short.py", "state[0] = now", f"if now:\n            {statement}"
        )
    assert "remove decorators and defaults" in reject(tmp_path / "short.py", "now, cost):", "now, cost, more=1):")
    assert "return" in reject(tmp_path / "short.py", "return cost > 3, EXPRESSION", "return cost")


def test_what_raises_an_error_in_python_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "mixed.py"
    path.write_text(EVERY_CONSTRUCT.replace("(1 + cost)", "(7 - cost)").replace("cost % 3]", "cost]"))
    translator = Translator(find(f"{path}:Mixed").from_quota(Quota.parse("2/s", 5)))
    cost = z3.Int("cost")
    reasons = {fault.reason for fault in translator.step([0, 1, 2], 0, cost).faults}
    assert reasons == {"division by zero", "index out of range"}
