"""Scenes: the hits that a theorem is about, by terms to prove it or by the real step to check a counterexample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol, Self

import z3

from ratelab.limiter import Algorithm, Decision, Traits
from ratelab.prove.expressions import StepFault
from ratelab.prove.terms import Number, Truth, all_of, is_term, negate
from ratelab.prove.translate import Method, Stepped, Translator
from ratelab.quota import Quota


class DecidedHit(NamedTuple):
    """A hit, its decision, and the state before and after it."""

    now: Number
    cost: Number
    decision: Decision
    before: list[Number]
    after: list[Number]
    faults: Sequence[StepFault]
    by: str
    """Its lane: empty for the algorithm, else the other algorithm or course of events that is compared."""
    note: str


class Steps(Protocol):
    """The start and the step of an algorithm, on terms or on numbers."""

    algorithm: Algorithm

    def start(self, now: Number) -> list[Number]:
        """Return the state of a new key."""
        ...

    def step(self, state: Sequence[Number], now: Number, cost: Number) -> Stepped:
        """Return the result of a step; `state` is left as it is."""
        ...


class RealSteps:
    """The `start` and the `step` that limiters call."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def start(self, now: int) -> list[int]:
        """Return the state of a new key."""
        return self.algorithm.start(now)

    def step(self, state: Sequence[int], now: int, cost: int) -> Stepped:
        """Return the result of a step; an exception is a fault."""
        after = [*state]
        try:
            row = self.algorithm.step(after, now, cost)
        except Exception as error:
            fault = StepFault(True, 0, f"{type(error).__name__}: {error}")
            return Stepped((False, 0, 0, 0, 0), after, [fault])
        return Stepped((bool(row[0]), *row[1:]), after, [])


class TranslatedSteps:
    """The translation of both, made once; the values of each step are names, which `definitions` define."""

    def __init__(self, algorithm: Algorithm, step: Method | None = None, label: str = "") -> None:
        self.algorithm, self._label = algorithm, label
        translator, now, cost = Translator(algorithm, step), z3.Int("now"), z3.Int("cost")
        self._started = translator.start(now)
        self._places = [*z3.Ints([f"state[{place}]" for place in range(len(self._started))]), now, cost]
        self._stepped = translator.step(self._places[:-2], now, cost)
        self.definitions: list[Truth] = []

    def renew(self) -> Self:
        """Return a copy without definitions, for another scene."""
        renewed = copy(self)
        renewed.definitions = []
        return renewed

    def start(self, now: Number) -> list[Number]:
        """Return the state of a new key."""
        return [_insert(value, [(self._places[-2], now)]) for value in self._started]

    def step(self, state: Sequence[Number], now: Number, cost: Number) -> Stepped:
        """Return the result of a step."""
        pairs = [*zip(self._places, [*state, now, cost], strict=True)]
        row, after = (
            [self._name(_insert(value, pairs), f"{self._label}{kind}.{place}") for place, value in enumerate(values)]
            for kind, values in (("row", self._stepped.row), ("after", self._stepped.state))
        )
        faults = [fault._replace(condition=_insert(fault.condition, pairs)) for fault in self._stepped.faults]
        return Stepped(tuple(row), after, faults)

    def _name(self, value: Any, name: str) -> Any:
        if not is_term(value) or z3.is_const(value):
            return value
        name = f"{name}.{len(self.definitions)}"
        named = z3.Bool(name) if z3.is_bool(value) else z3.Int(name)
        self.definitions.append(named == value)
        return named


def _insert(value: Any, pairs: Sequence[tuple[Any, Any]]) -> Any:
    if not is_term(value):
        return value
    return z3.substitute(value, *((name, given if is_term(given) else z3.IntVal(given)) for name, given in pairs))


class Subject(NamedTuple):
    """An algorithm to prove theorems of."""

    algorithm: Algorithm
    quota: Quota
    traits: Traits


class Scene:
    """Hits on one key, from a state that some history may have led to.

    A theorem asks it for variables, states its assumptions, and lets hits happen. With `values`, the variables have
    these values and the hits are decided by the real step.
    """

    def __init__(
        self, subject: Subject, steps: Steps, values: Mapping[str, int] | None = None, knowledge: Any = None
    ) -> None:
        self.subject, self.steps, self.values = subject, steps, values
        self._knowledge = knowledge
        self.algorithm: Any = subject.algorithm
        self.state: list[Number] = []
        self.latest: Number = 0
        self.ghost: list[Any] = []
        self.given: list[Truth] = []
        self.hits: list[DecidedHit] = []
        self.variables: dict[str, Number] = {}
        self.observes = values is not None
        """Whether two states count as equal unless decisions show a difference."""
        self._others: dict[str, Steps] = {}

    def variable(self, name: str) -> Number:
        """Return a variable of the theorem."""
        if name not in self.variables:
            self.variables[name] = z3.Int(name) if self.values is None else self.values.get(name, 0)
        return self.variables[name]

    def time(self, name: str, not_before: Number | None = None) -> Number:
        """Return a time, by default of any clock."""
        if not_before is not None:
            self.suppose(self.variable(name) >= not_before)
        return self.variable(name)

    def cost(self, name: str) -> Number:
        """Return a cost."""
        self.suppose(self.variable(name) >= 0)
        return self.variable(name)

    def suppose(self, *terms: Truth) -> None:
        """Restrict the scene to those in which all terms are true."""
        self.given += terms

    def start(self, now: Number) -> list[Number]:
        """Return the state of a new key."""
        return self.steps.start(now)

    def view(self, state: Sequence[Number]) -> list[Number]:
        """Return the numbers on which the decisions of a state depend."""
        return [*state] if self._knowledge is None else self._knowledge.view(self.algorithm, state)

    def hit(self, state: Sequence[Number], now: Number, cost: Number, note: str = "", by: str = "") -> DecidedHit:
        """Let a hit happen, which raises no exception."""
        return self._hit(self.steps, state, now, cost, note, by)

    def hit_with_faults(self, state: Sequence[Number], now: Number, cost: Number) -> DecidedHit:
        """Let a hit happen, which may raise an exception."""
        given = len(self.given)
        hit = self._hit(self.steps, state, now, cost, "", "")
        del self.given[given:]
        return hit

    def other(self, algorithm: Algorithm) -> Steps:
        """Return the steps of another algorithm."""
        if algorithm.name not in self._others:
            translated = self.values is None
            self._others[algorithm.name] = (
                TranslatedSteps(algorithm, label="other.") if translated else RealSteps(algorithm)
            )
        return self._others[algorithm.name]

    def hit_other(self, algorithm: Algorithm, state: Sequence[Number], now: Number, cost: Number) -> DecidedHit:
        """Let a hit happen to a key of another algorithm."""
        return self._hit(self.other(algorithm), state, now, cost, "", algorithm.name)

    def _hit(self, steps: Steps, state: Sequence[Number], now: Number, cost: Number, note: str, by: str) -> DecidedHit:
        row, after, faults = steps.step(state, now, cost)
        hit = DecidedHit(now, cost, Decision(*row), [*state], after, faults, by, note)
        self.hits.append(hit)
        self.suppose(*(negate(fault.condition) for fault in faults))
        return hit

    def list_definitions(self) -> list[Truth]:
        """Return the definitions of the names that hits have given."""
        all_steps = [self.steps, *self._others.values()]
        return [term for steps in all_steps if isinstance(steps, TranslatedSteps) for term in steps.definitions]

    def is_counterexample(self, conclusion: Truth) -> bool:
        """Return whether all that is supposed is true and the conclusion is not; for a scene of numbers."""
        return bool(all_of(*self.given)) and not conclusion


class History(NamedTuple):
    """Quantities that hits change and the step does not know, such as the cost admitted in some window."""

    begin: Callable[[Scene, Sequence[Number], Number], list[Any]]
    """Return them for a new key, given its state and the time."""
    advance: Callable[[Scene, list[Any], DecidedHit, Number], list[Any]]
    """Return them after a hit, given them, the hit and the latest time before it."""
    relate: Callable[[Scene, list[Any], Sequence[Number], Number], list[Truth]]
    """Return how they may agree with a state and its latest time; a proof uses what every hit preserves."""
    is_forward: bool = False
    """Whether the clock never steps back."""


class Theorem(NamedTuple):
    """A promise about all states, times and costs of one quota."""

    name: str
    meaning: str
    claim: Callable[[Scene], Truth]
    """Let hits happen from the state of a scene, and return the conclusion."""
    history: History | None = None
    explain: Callable[[Scene], str] = lambda _: ""
    """Return the parts of the claim that a scene of numbers violates, if `meaning` leaves them open."""
