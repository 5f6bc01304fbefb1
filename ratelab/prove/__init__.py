"""Proofs about an algorithm: its `step`, as it is shipped, keeps its promises for all states, times and costs.

The step is translated from its source into terms of the SMT solver Z3 (`translate`). Induction over hits proves the
theorems about it (`theorems`, `built_in`). A theorem that this does not prove is refuted by the shortest timeline from
a new key that breaks it, and only after the real step has decided that timeline in the same way (`solver`).

L. de Moura and N. Bjorner, "Z3: an efficient SMT solver" (2008).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ratelab.algorithms import build_policy, traits_of
from ratelab.algorithms.penalty import Penalized
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Algorithm, Decision
from ratelab.quota import Quota, spell_duration

if TYPE_CHECKING:
    from ratelab.prove.built_in import Knowledge
    from ratelab.prove.scene import Subject, Theorem
    from ratelab.prove.solver import Counterexample, Prover

PROVED, REFUTED, UNDECIDED = "proved", "refuted", "undecided"

DEFAULT_TIMEOUT_NS = 10 * 10**9
"""The time for each theorem."""


class Event(NamedTuple):
    """A hit in a timeline, as the real step decides it."""

    at: int
    """The time in nanoseconds that the clock shows."""
    cost: int
    decision: Decision
    state: list[int]
    """The state of the key afterwards."""
    by: str
    """Its lane: empty for the algorithm, else the other algorithm or course of events that is compared."""
    note: str


class Finding(NamedTuple):
    """A theorem, and whether it is proved."""

    name: str
    meaning: str
    status: str
    """`PROVED`, `REFUTED` or `UNDECIDED`."""
    reason: str = ""
    """Why it is undecided, or which limits of a state are violated."""
    quota: str = ""
    """The quota at which it is refuted."""
    new_state: Sequence[int] = ()
    """The state of the new key with which the timeline begins."""
    origin: int = 0
    """The time at which the key is new."""
    timeline: Sequence[Event] = ()


class Proof(NamedTuple):
    """The findings about one algorithm at one quota."""

    algorithm: str
    quota: str
    scope: str
    """The sizes for which the theorems are proved, if that is not the quota's."""
    state: Sequence[str]
    """The names of the numbers in a state."""
    invariants: Sequence[str]
    findings: Sequence[Finding]

    @property
    def is_complete(self) -> bool:
        """Whether every theorem is proved."""
        return all(finding.status == PROVED for finding in self.findings)


Progress = Callable[[int], object]
"""Called with the number of further theorems that have been decided."""


def prove(
    kind: type[Algorithm],
    quota: Quota,
    timeout_ns: int = DEFAULT_TIMEOUT_NS,
    names: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Proof:
    """Prove or refute the theorems about an algorithm at one quota, or those with `names`; each may take `timeout_ns`.

    Raises `InputError` if the step is not plain integer arithmetic, if the algorithm cannot grant the quota, and for an
    unknown theorem.
    """
    if issubclass(kind, Penalized):
        raise InputError(
            f"{kind.name} has a penalty, which is not plain integer arithmetic: prove the algorithm within, "
            f"{kind.kind.name}"
        )
    if quota.calendar is not None and len(quota.runs[0]) > 1:
        raise InputError(
            f"{kind.name} at {quota} cannot be proved, because its windows differ in length: "
            "prove a period of fixed length, such as 1000/day"
        )
    algorithm = build_policy(kind, quota).algorithm
    knowledge = _find_knowledge(type(algorithm))
    sizes, scope = _choose_sizes(quota, knowledge)
    proofs = [_prove_size(type(algorithm), size, knowledge, timeout_ns, names, progress) for size in sizes]
    findings = [_combine(findings) for findings in zip(*(findings for _, findings in proofs), strict=True)]
    return Proof(kind.name, str(quota), scope, traits_of(algorithm).state, proofs[-1][0], findings)


def proves_equal(kind: type[Algorithm], source: str, quota: Quota, timeout_ns: int = DEFAULT_TIMEOUT_NS) -> bool:
    """Return whether a `step`, given as the text of a file that is not run, is proved to decide as that of `kind`.

    Raises `InputError` for a text that cannot be translated.
    """
    from ratelab.prove.scene import Subject, TranslatedSteps
    from ratelab.prove.solver import OutOfTimeError, Prover, TimeBudget
    from ratelab.prove.theorems import NO_ERRORS, decides_as_itself
    from ratelab.prove.translate import parse_method

    algorithm = build_policy(kind, quota).algorithm
    steps = TranslatedSteps(algorithm, parse_method(source, "step"))
    seconds = timeout_ns / 1e9
    prover = Prover(Subject(algorithm, quota, traits_of(algorithm)), steps, seconds, _find_knowledge(type(algorithm)))
    try:
        prover.find_invariants()
        return all(
            prover.is_proved(theorem, TimeBudget(seconds)) for theorem in (NO_ERRORS, decides_as_itself(algorithm))
        )
    except OutOfTimeError:
        return False


def _find_knowledge(kind: type[Algorithm]) -> Knowledge | None:
    """Return the facts about the states of a built-in algorithm, which also hold for a class with the same states."""
    from ratelab.prove.built_in import KNOWN

    return next((known for base, known in KNOWN.items() if issubclass(kind, base) and kind.start is base.start), None)


def _choose_sizes(quota: Quota, knowledge: Knowledge | None) -> tuple[list[Quota], str]:
    """Return the quotas to prove instead of a large one, if the size of a state depends on its burst."""
    largest = knowledge and knowledge.largest_burst
    if largest is None or quota.burst <= largest:
        return [quota], ""
    window = quota.window
    return [Quota(burst, window, burst) for burst in range(1, largest + 1)], f"for logs of at most {largest} entries"


def _prove_size(
    kind: type[Algorithm],
    quota: Quota,
    knowledge: Knowledge | None,
    timeout_ns: int,
    names: Sequence[str],
    progress: Progress,
) -> tuple[list[str], list[Finding]]:
    from ratelab.prove.scene import Subject, TranslatedSteps
    from ratelab.prove.solver import OutOfTimeError, Prover

    algorithm = build_policy(kind, quota).algorithm
    subject = Subject(algorithm, quota, traits_of(algorithm))
    theorems = _select_theorems(subject, knowledge, names)
    prover = Prover(subject, TranslatedSteps(algorithm), timeout_ns / 1e9, knowledge)
    try:
        prover.find_invariants()
        prover.reduce_states()
    except OutOfTimeError:
        pass  # the theorems are tried with fewer invariants
    findings = list[Finding]()
    for theorem in theorems:
        findings.append(_decide(prover, theorem))
        progress(1)
    return prover.invariants, findings


def _select_theorems(subject: Subject, knowledge: Knowledge | None, names: Sequence[str]) -> list[Theorem]:
    theorems = {theorem.name: theorem for theorem in list_theorems(subject, knowledge)}
    unknown = next((name for name in names if name not in theorems), None)
    if unknown is not None:
        raise InputError(f"unknown theorem {short_repr(unknown)}: choose one of {', '.join(theorems)}")
    return [theorem for name, theorem in theorems.items() if not names or name in names]


def list_theorems(subject: Subject, knowledge: Knowledge | None) -> Iterator[Theorem]:
    """Yield the theorems about an algorithm, in the order in which they are shown."""
    from ratelab.prove.built_in import keeps_invariants
    from ratelab.prove.theorems import GENERAL, bound_of_any_window, relate_fields

    if knowledge is not None:
        yield keeps_invariants(knowledge)
    for theorem in GENERAL:
        if not (theorem.name == "denied" and subject.traits.counts_denials):
            yield theorem
    if subject.traits.at_most is not None:
        yield bound_of_any_window(subject, knowledge.relate if knowledge else relate_fields)
    if knowledge is not None:
        yield from knowledge.theorems(subject)


def _decide(prover: Prover, theorem: Theorem) -> Finding:
    from ratelab.prove.solver import MAX_HITS, OutOfTimeError, TimeBudget

    finding, budget = Finding(theorem.name, theorem.meaning, UNDECIDED), TimeBudget(prover.seconds)
    try:
        if prover.is_proved(theorem, budget):
            return finding._replace(status=PROVED)
        counterexample = prover.find_counterexample(theorem, budget)
    except OutOfTimeError as error:
        return finding._replace(
            reason=str(error) or f"not decided within {spell_duration(round(prover.seconds * 1e9))}"
        )
    if counterexample is None:
        return finding._replace(reason=f"no proof found, and no timeline with up to {MAX_HITS} hits before")
    reason = theorem.explain(counterexample.scene)
    return _refute(finding._replace(reason=reason), prover.subject.quota, counterexample)


def _refute(finding: Finding, quota: Quota, counterexample: Counterexample) -> Finding:
    hits = counterexample.scene.hits
    timeline = [Event(hit.now, hit.cost, hit.decision, hit.after, hit.by, hit.note) for hit in hits]
    return finding._replace(
        status=REFUTED,
        quota=str(quota),
        origin=counterexample.origin,
        new_state=counterexample.new_state,
        timeline=timeline,
    )


def _combine(findings: Sequence[Finding]) -> Finding:
    """Return the finding about several sizes: the first refutation, else the first that is undecided."""
    order = (REFUTED, UNDECIDED, PROVED)
    return min(findings, key=lambda finding: order.index(finding.status))
