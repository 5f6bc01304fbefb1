"""Proofs by induction over hits, and the search for the shortest timeline that refutes a theorem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, product
from time import monotonic
from typing import Any, NamedTuple

import z3

from ratelab.prove.built_in import Invariants, Knowledge, Representative
from ratelab.prove.scene import History, RealSteps, Scene, Subject, Theorem, TranslatedSteps
from ratelab.prove.terms import Truth, all_of, divide, greatest, is_term, negate, run_solver
from ratelab.prove.theorems import list_fields

MAX_HITS = 3
"""Hits of a key before those that a theorem is about, in the search for a timeline."""

MAX_COMPARED_NUMBERS = 8
"""Numbers in a state that are compared with each other."""

FIRST_EFFORT = 5_000_000
"""Steps of the solver with the first seed: about a second."""

MAX_SIMPLIFYING_EFFORT = 500_000
"""Steps of the solver for each attempt to simplify a timeline; unlike a time, a limit that is the same in each run."""

NEAR_WINDOWS = 4
"""Windows from 0 in which a timeline is looked for first, so that its numbers are easy to read."""


class OutOfTimeError(Exception):
    """The time for a theorem is over, or the solver has given up; the message states why in the second case."""


class TimeBudget:
    """The time that may be spent on one theorem."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds

    def try_for(self, *terms: Truth) -> z3.ModelRef | None:
        """Return values for which all terms are true, or None if little effort finds none."""
        try:
            return self.check(*terms, effort=MAX_SIMPLIFYING_EFFORT)
        except OutOfTimeError:
            return None

    def check(self, *terms: Truth, effort: int = 0) -> z3.ModelRef | None:
        """Return values for which all terms are true, or None if there are none; `effort` limits the search.

        Without a limit, the solver starts again with another seed and twice the effort each time: a search that is long
        with one seed is often short with another.
        """
        if not all(is_term(term) or term for term in terms):
            return None
        for seed in count():
            left = int((self._end - monotonic()) * 1000)
            if left <= 0:
                raise OutOfTimeError
            solver = z3.Then("simplify", "propagate-values", "solve-eqs", "smt").solver()
            solver.set("timeout", left)
            solver.set("random_seed", seed)
            solver.set("rlimit", effort or FIRST_EFFORT << seed)
            solver.add(*(term for term in terms if is_term(term)))
            result = run_solver(solver)
            if result != z3.unknown:
                return solver.model() if result == z3.sat else None
            reason, is_late = solver.reason_unknown(), monotonic() >= self._end
            if effort or not (is_late or reason in ("timeout", "canceled") or "resource" in reason):
                raise OutOfTimeError(f"the solver has given up: {reason}")
        raise AssertionError  # count() does not end


class Prover:
    """The proofs of the theorems about one algorithm."""

    def __init__(
        self, subject: Subject, steps: TranslatedSteps, seconds: float, knowledge: Knowledge | None = None
    ) -> None:
        self.subject, self._steps, self.seconds, self._knowledge = subject, steps, seconds, knowledge
        self.invariants: list[str] = []
        self._representative: Representative | None = None

    # --- scenes

    def _create_scene(self) -> Scene:
        return Scene(self.subject, self._steps.renew(), knowledge=self._knowledge)

    def _any_state(self, history: History | None = None, relations: Sequence[int] = ()) -> Scene:
        """Return a scene whose state has all the invariants, and agrees with a history by some of its relations."""
        scene = self._create_scene()
        width = len(scene.start(0))
        scene.state = list(z3.Ints([f"state{place}" for place in range(width)]))
        scene.latest = z3.Int("latest")
        scene.given += self._list_kept(scene.state, scene.latest)
        if self._representative is not None:
            scene.suppose(self._representative.is_one(scene.state))
        if history is not None:
            begun = history.begin(scene, scene.start(0), 0)
            scene.ghost = [
                z3.Bool(f"ghost{place}") if isinstance(value, bool) else z3.Int(f"ghost{place}")
                for place, value in enumerate(begun)
            ]
            related = history.relate(scene, scene.ghost, scene.state, scene.latest)
            scene.suppose(*(related[number] for number in relations))
        return scene

    def _list_kept(self, state: Sequence[Any], latest: Any) -> list[Truth]:
        return [term for text, term in self._list_invariants(state, latest) if text in self.invariants]

    def _list_invariants(self, state: Sequence[Any], latest: Any) -> Invariants:
        if self._knowledge is not None:
            return self._knowledge.invariants(self.subject.algorithm, state, latest)
        return list_candidates(self.subject, state, latest)

    # --- invariants

    def find_invariants(self) -> None:
        """Keep those of the candidates that hold for a new key, and that every hit preserves if all of them hold.

        Flanagan and Leino, "Houdini, an annotation assistant for ESC/Java" (2001).
        """
        budget, scene = TimeBudget(self.seconds), self._create_scene()
        origin = scene.variable("origin")
        kept = _keep_true(budget, scene, dict(self._list_invariants(scene.start(origin), origin)))
        while kept != self.invariants:
            self.invariants = kept
            scene = self._any_state()
            hit = scene.hit(scene.state, scene.time("now"), scene.cost("cost"))
            after = self._list_invariants(hit.after, greatest(hit.now, scene.latest))
            kept = _keep_true(budget, scene, {text: term for text, term in after if text in kept})

    def _find_relations(self, history: History, budget: TimeBudget) -> list[int]:
        """Return the numbers of the relations that hold for a new key and that every hit preserves, as invariants."""
        scene = self._create_scene()
        origin = scene.variable("origin")
        begun = scene.start(origin)
        related = history.relate(scene, history.begin(scene, begun, origin), begun, origin)
        kept = _keep_true(budget, scene, dict(enumerate(related)))
        while True:
            scene = self._any_state(history, kept)
            now = scene.time("now", scene.latest if history.is_forward else None)
            hit = scene.hit(scene.state, now, scene.cost("cost"))
            ghost, latest = history.advance(scene, scene.ghost, hit, scene.latest), greatest(now, scene.latest)
            scene.suppose(*self._list_kept(hit.after, latest))
            related = history.relate(scene, ghost, hit.after, latest)
            before, kept = kept, _keep_true(budget, scene, {number: related[number] for number in kept})
            if kept == before:
                return kept

    def reduce_states(self) -> None:
        """Restrict the states of proofs to representatives, if each state is proved to decide as its own."""
        representative = None if self._knowledge is None else self._knowledge.representative
        if representative is not None and self.is_proved(representative.theorem, TimeBudget(self.seconds)):
            self._representative = representative

    # --- theorems

    def is_proved(self, theorem: Theorem, budget: TimeBudget) -> bool:
        """Return whether a theorem holds for every state that has the invariants."""
        scene = self._any_state()
        if theorem.history is not None:
            relations = self._find_relations(theorem.history, budget)
            scene = self._any_state(theorem.history, relations)
        conclusion = theorem.claim(scene)
        return budget.check(*scene.given, *scene.list_definitions(), negate(conclusion)) is None

    def find_counterexample(self, theorem: Theorem, budget: TimeBudget) -> Counterexample | None:
        """Return a timeline of few hits that refutes a theorem, as the real step decides it; None if there is none."""
        for is_near, hits in product((True, False), range(MAX_HITS + 1)):
            scene = self._unroll(theorem, hits)
            scene.observes = True
            violated = negate(theorem.claim(scene))
            terms = [*scene.given, *scene.list_definitions(), violated]
            if is_near:
                terms += self._list_near(scene)
            model = budget.check(*terms)
            if model is not None:
                values = self._simplify(scene, terms, model, budget)
                return self.replay(theorem, hits, values)
        return None

    def _unroll(self, theorem: Theorem, hits: int, values: dict[str, int] | None = None) -> Scene:
        """Return a scene after a number of hits on a new key."""
        steps = self._steps.renew() if values is None else RealSteps(self.subject.algorithm)
        scene = Scene(self.subject, steps, values, self._knowledge)
        history, origin = theorem.history, scene.variable("origin")
        scene.state, scene.latest = scene.start(origin), origin
        scene.ghost = history.begin(scene, scene.state, origin) if history else []
        for number in range(hits):
            forward = scene.latest if history and history.is_forward else None
            hit = scene.hit(scene.state, scene.time(f"time{number}", forward), scene.cost(f"spent{number}"))
            if history:
                scene.ghost = history.advance(scene, scene.ghost, hit, scene.latest)
            scene.state = hit.after
            scene.latest = greatest(hit.now, scene.latest)
        return scene

    def _list_near(self, scene: Scene) -> Iterator[Truth]:
        quota = self.subject.quota
        for name, value in scene.variables.items():
            yield value >= 0
            is_cost = name.startswith(("spent", "cost"))
            yield value <= (quota.burst + 1 if is_cost else NEAR_WINDOWS * quota.window)
        yield scene.variable("origin") == 0

    def _simplify(self, scene: Scene, terms: list[Truth], model: z3.ModelRef, budget: TimeBudget) -> dict[str, int]:
        """Return values that refute the theorem, too: of each variable in turn a landmark, or else the least one.

        So they are easy to read, and do not depend on the version of the solver.
        """
        fixed = list[Truth]()
        for name, variable in scene.variables.items():
            is_small = name.startswith(("spent", "cost", "less"))
            for landmark in [0, 1, 2] if is_small else self._list_landmarks():
                found = budget.try_for(*terms, *fixed, variable == landmark)
                if found is not None:
                    model = found
                    break
            else:
                model = _minimize(variable, [*terms, *fixed], model, budget)
            fixed.append(variable == _read(model, variable))
        return {name: _read(model, variable) for name, variable in scene.variables.items()}

    def _list_landmarks(self) -> list[int]:
        window, unit = self.subject.quota.window, max(1, self.subject.quota.period // self.subject.quota.limit)
        return sorted({0, 1, unit, window // 2, window, 2 * window})

    def replay(self, theorem: Theorem, hits: int, values: dict[str, int]) -> Counterexample:
        """Decide a timeline by the real step; raise `RuntimeError` if it does not refute the theorem there."""
        scene = self._unroll(theorem, hits, values)
        conclusion = theorem.claim(scene)
        if not scene.is_counterexample(conclusion):
            raise RuntimeError(f"the translation of {self.subject.algorithm.name} is wrong: {theorem.name}, {values}")
        return Counterexample(values["origin"], self.subject.algorithm.start(values["origin"]), scene)


def _read(model: z3.ModelRef, variable: Any) -> int:
    value: int = model.eval(variable, model_completion=True).as_long()
    return value


def _minimize(variable: Any, terms: Sequence[Truth], model: z3.ModelRef, budget: TimeBudget) -> z3.ModelRef:
    """Return values with the least one from 0 on of a variable; the given ones if it is below 0."""
    low, high = 0, _read(model, variable)
    while low < high:
        middle = (low + high) // 2
        found = budget.try_for(*terms, variable >= low, variable <= middle)
        if found is None:
            low = middle + 1
        else:
            model, high = found, _read(found, variable)
    return model


class Counterexample(NamedTuple):
    """A timeline that refutes a theorem, decided by the real step."""

    origin: int
    """The time at which the key is new."""
    new_state: list[int]
    scene: Scene


def _keep_true(budget: TimeBudget, scene: Scene, terms: dict[Any, Truth]) -> list[Any]:
    """Return the keys of the terms that are true in all that a scene supposes, by leaving out those that may not be."""
    given = [*scene.given, *scene.list_definitions()]
    while (model := budget.check(*given, negate(all_of(*terms.values())))) is not None:
        kept = {key: term for key, term in terms.items() if _is_true(model, term)}
        if len(kept) == len(terms):
            raise OutOfTimeError
        terms = kept
    return [*terms]


def _is_true(model: z3.ModelRef, term: Truth) -> bool:
    return not z3.is_false(model.eval(term, model_completion=True)) if is_term(term) else bool(term)


def list_candidates(subject: Subject, state: Sequence[Any], latest: Any) -> Invariants:
    """Return properties that the numbers in a state of a third-party algorithm may have."""
    names = subject.traits.state if len(subject.traits.state) == len(state) else ()
    named = {(names[place] if names else f"state[{place}]"): value for place, value in enumerate(state)}
    fields = list_fields(subject)
    found: Invariants = []
    for name, value in named.items():
        found += [(f"{name} >= 0", value >= 0), (f"{name} <= latest time", value <= latest)]
        found.append((f"latest time <= {name}", latest <= value))
        for field, number in fields.items():
            found += [
                (f"{name} <= {field}", value <= number),
                (f"{name} <= latest time + {field}", value <= latest + number),
                (f"latest time x {field} <= {name}", latest * number <= value),
                (f"{name} = latest time // {field}", value == divide(latest, number)),
            ]
            found += [
                (f"{name} <= latest time x {field} + {other}", value <= latest * number + more)
                for other, more in fields.items()
            ]
    found += [
        (f"{one} <= {other}", named[one] <= named[other])
        for one, other in product(named, named)
        if one != other and len(named) <= MAX_COMPARED_NUMBERS
    ]
    return found
