"""Theorems about any algorithm: what the contracts of `ratelab.lab.conformance` promise, for all states and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ratelab.limiter import NEVER, Algorithm
from ratelab.prove.scene import DecidedHit, History, Scene, Subject, Theorem
from ratelab.prove.terms import Number, Truth, all_of, any_of, choose, greatest, implies, negate, same, same_each


def raises_no_error(scene: Scene) -> Truth:
    """Conclude that a step raises no exception at any time."""
    hit = scene.hit_with_faults(scene.state, scene.time("now"), scene.cost("cost"))
    return all_of(*(negate(fault.condition) for fault in hit.faults))


def returns_valid_fields(scene: Scene) -> Truth:
    """Conclude that no field is negative: no wait if admitted, no delay if denied or unless declared."""
    hit = scene.hit(scene.state, scene.time("now"), scene.cost("cost"))
    allowed, remaining, retry_after, reset_after, delay = hit.decision.row
    return all_of(
        *(field >= 0 for field in (remaining, retry_after, reset_after, delay)),
        implies(allowed, retry_after == 0),
        implies(negate(allowed), delay == 0),
        True if scene.subject.traits.queues else delay == 0,
    )


def wait_suffices(scene: Scene) -> Truth:
    """Conclude that the same request alone is admitted after the announced wait, which is not 0."""
    denied = _denied(scene)
    wait = denied.decision.retry_after_ns
    again = scene.hit(denied.after, denied.now + wait, denied.cost, "after the announced wait")
    return all_of(wait > 0, again.decision.allowed)


def wait_is_tight(scene: Scene) -> Truth:
    """Conclude that the same request alone is denied after any shorter wait."""
    denied, less = _denied(scene), scene.variable("less")
    scene.suppose(less >= 0, less < denied.decision.retry_after_ns)
    again = scene.hit(denied.after, denied.now + less, denied.cost, "earlier than announced")
    return negate(again.decision.allowed)


def _denied(scene: Scene) -> DecidedHit:
    hit = scene.hit(scene.state, scene.time("now", scene.latest), scene.cost("cost"))
    scene.suppose(negate(hit.decision.allowed), hit.decision.retry_after_ns != NEVER)
    return hit


def never_means_a_cost_above_burst(scene: Scene) -> Truth:
    """Conclude that no wait helps if and only if the cost is above the burst."""
    hit = scene.hit(scene.state, scene.time("now", scene.latest), scene.cost("cost"))
    return same(hit.decision.retry_after_ns == NEVER, hit.cost > scene.subject.quota.burst)


def denied_hit_changes_nothing(scene: Scene) -> Truth:
    """Conclude that every later request is decided as without a denied one."""
    denied = scene.hit(scene.state, scene.time("now"), scene.cost("cost"), "the denied hit")
    scene.suppose(negate(denied.decision.allowed))
    return _decides_alike(scene, denied.after, scene.state, denied.now, "without it")


def look_changes_nothing(scene: Scene) -> Truth:
    """Conclude that a request of cost 0 is admitted, and that every later one is decided as without it."""
    look = scene.hit(scene.state, scene.time("now", scene.latest), 0, "the look")
    if look.decision.allowed is False:
        return False
    alike = _decides_alike(scene, look.after, scene.state, look.now, "without it")
    return all_of(look.decision.allowed, alike)


def _decides_alike(scene: Scene, one: Sequence[Number], two: Sequence[Number], since: Number, by: str) -> Truth:
    """Conclude that two states decide every hit since a time alike.

    One hit leads both to the same state, since each step brings a state up to date. To observe a difference, a second
    hit follows.
    """
    conclusions = list[Truth]()
    for number in range(2 if scene.observes else 1):
        since, cost = scene.time(f"later{number}", since), scene.cost(f"cost{number}")
        if any(conclusion is False for conclusion in conclusions):
            break  # the difference has been observed
        first, second = scene.hit(one, since, cost), scene.hit(two, since, cost, by=by)
        conclusions.append(same_each(first.decision.row, second.decision.row))
        one, two = first.after, second.after
    return all_of(*conclusions, True if scene.observes else same_each(scene.view(one), scene.view(two)))


def remaining_is_exact(scene: Scene) -> Truth:
    """Conclude that exactly the remaining cost would be admitted at the same time, and not one unit more."""
    hit = scene.hit(scene.state, scene.time("now", scene.latest), scene.cost("cost"))
    rest = hit.decision.remaining
    fits = scene.hit(hit.after, hit.now, rest, "takes the remaining cost")
    if fits.decision.allowed is False:
        return False
    scene.hits.pop()
    exceeds = scene.hit(hit.after, hit.now, rest + 1, "takes one more than the remaining cost")
    return all_of(fits.decision.allowed, negate(exceeds.decision.allowed))


def reset_is_exact(scene: Scene) -> Truth:
    """Conclude that a key decides as a new one after `reset_after_ns`, and that a shorter time is not enough."""
    hit = scene.hit(scene.state, scene.time("now", scene.latest), scene.cost("cost"))
    reset = hit.now + hit.decision.reset_after_ns
    early = scene.hit(hit.after, reset - 1, 0, "before the reset")
    is_late = any_of(reset == hit.now, early.decision.reset_after_ns > 0)
    if is_late is False:
        return False
    scene.hits.pop()
    return all_of(is_late, _decides_alike(scene, hit.after, scene.start(reset), reset, "a new key"))


def step_back_grants_nothing(scene: Scene) -> Truth:
    """Conclude that a hit by a clock that has stepped back gets no more than one on time, nor do later ones."""
    before, cost = scene.variable("before"), scene.cost("cost")
    scene.suppose(before < scene.latest)
    early = scene.hit(scene.state, before, cost, "the clock has stepped back")
    on_time = scene.hit(scene.state, scene.latest, cost, by="on time")
    later = scene.time("later", scene.latest)
    after_early = scene.hit(early.after, later, 0)
    after_on_time = scene.hit(on_time.after, later, 0, by="on time")
    alike = same(early.decision.allowed, on_time.decision.allowed)
    return all_of(
        implies(early.decision.allowed, on_time.decision.allowed),
        implies(alike, early.decision.remaining <= on_time.decision.remaining),
        implies(alike, after_early.decision.remaining <= after_on_time.decision.remaining),
    )


# --- the cost admitted in any window


class ObservedWindow(NamedTuple):
    """A window of time, and the cost that it has admitted."""

    first: Number
    """The time at which it begins."""
    length: int
    latest: Number
    """The latest time that the key has seen."""
    admitted: Number
    """The cost that the window has admitted."""

    @property
    def is_open(self) -> Truth:
        """Whether the latest time is in the window."""
        return all_of(self.first <= self.latest, self.latest < self.first + self.length)


def bound_of_any_window(
    subject: Subject, relate: Callable[[Scene, Sequence[Number], ObservedWindow], list[Truth]]
) -> Theorem:
    """Return the theorem that no window of `Quota.window` admits more than the declared bound.

    The window begins at any time. A hit counts when it departs, by the latest time that the key has seen. `relate`
    returns how a state agrees with what the window has admitted.
    """
    quota, (factor, extra) = subject.quota, subject.traits.at_most or (0, 0)
    length = quota.window if quota.limit <= quota.period else quota.burst * quota.period // quota.limit

    def begin(_scene: Scene, _state: Sequence[Number], _now: Number) -> list[Number]:
        return [0, 0]  # the cost admitted in the window, and the largest of one hit

    def advance(scene: Scene, ghost: list[Number], hit: DecidedHit, latest: Number) -> list[Number]:
        first, departs = scene.variable("window"), greatest(latest, hit.now) + hit.decision.delay_ns
        counts = all_of(hit.decision.allowed, first <= departs, departs < first + length)
        admitted, largest = ghost
        return [choose(counts, admitted + hit.cost, admitted), choose(counts, greatest(largest, hit.cost), largest)]

    def limit(ghost: list[Number]) -> Number:
        return factor * quota.burst + (extra * ghost[1] if extra > 0 else extra)

    def related(scene: Scene, ghost: list[Number], state: Sequence[Number], latest: Number) -> list[Truth]:
        first, (admitted, largest) = scene.variable("window"), ghost
        return [
            admitted <= limit(ghost),
            admitted >= 0,
            largest >= 0,
            implies(latest < first, admitted == 0),  # not of a queue, where a hit departs later
            *relate(scene, state, ObservedWindow(first, length, latest, admitted)),
        ]

    def claim(scene: Scene) -> Truth:
        return scene.ghost[0] <= limit(scene.ghost)

    text = f"{factor} x burst" if factor != 1 else "burst"
    text += f" + {extra} request" if extra > 0 else f" - {-extra}" if extra else ""
    meaning = f"any window of burst / rate admits at most {text}"
    return Theorem("bound", meaning, claim, History(begin, advance, related))


def relate_fields(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    """Return how the state of any algorithm may agree with the cost that a window has admitted."""
    admitted = window.admitted
    return [
        term
        for value in state
        for number in list_fields(scene.subject).values()
        for term in (
            implies(admitted > 0, value >= window.first + number),
            admitted <= value,
            admitted + value <= number,
        )
    ]


def list_fields(subject: Subject) -> dict[str, int]:
    """Return the positive whole numbers among the fields of an algorithm, by name; also its burst."""
    declared = getattr(type(subject.algorithm), "__dataclass_fields__", {})
    values = {name: getattr(subject.algorithm, name, None) for name in declared}
    fields = {name: value for name, value in values.items() if type(value) is int and value > 0}
    return {"burst": subject.quota.burst, **fields}


# --- equality with another algorithm


def equals(other: Algorithm, relate: Callable[[Scene, list[Number], Sequence[Number], Number], list[Truth]]) -> Theorem:
    """Return the theorem that every decision equals that of another algorithm, by times that never decrease.

    `relate` returns how its state agrees with one of the other, given the latest time.
    """

    def begin(scene: Scene, _state: Sequence[Number], now: Number) -> list[Any]:
        return [True, *scene.other(other).start(now)]

    def advance(scene: Scene, ghost: list[Any], hit: DecidedHit, _latest: Number) -> list[Any]:
        alike, *state = ghost
        answer = scene.hit_other(other, state, hit.now, hit.cost)
        return [all_of(alike, same_each(hit.decision.row, answer.decision.row)), *answer.after]

    def related(scene: Scene, ghost: list[Any], state: Sequence[Number], latest: Number) -> list[Truth]:
        return [ghost[0], *relate(scene, ghost[1:], state, latest)]

    history = History(begin, advance, related, is_forward=True)
    return Theorem(other.name, f"every decision equals that of {other.name}", lambda scene: scene.ghost[0], history)


def decides_as_itself(algorithm: Algorithm) -> Theorem:
    """Return the theorem that a translated step decides as that of its class, and leaves the same state."""

    def claim(scene: Scene) -> Truth:
        hit = scene.hit(scene.state, scene.time("now"), scene.cost("cost"))
        exact = scene.hit_other(algorithm, scene.state, hit.now, hit.cost)
        return all_of(same_each(hit.decision.row, exact.decision.row), same_each(hit.after, exact.after))

    return Theorem(algorithm.name, f"every decision equals that of {algorithm.name}", claim)


NO_ERRORS = Theorem("no errors", "a step raises no exception, whatever the clock shows", raises_no_error)

GENERAL = [
    NO_ERRORS,
    Theorem("fields", "no field is negative; no wait if admitted, no delay if denied", returns_valid_fields),
    Theorem("wait suffices", "the same request alone is admitted after the announced wait", wait_suffices),
    Theorem("wait is tight", "one nanosecond less, or any shorter wait, does not suffice", wait_is_tight),
    Theorem("never", "the wait is NEVER if and only if the cost is above the burst", never_means_a_cost_above_burst),
    Theorem("denied", "a denied hit changes no later decision", denied_hit_changes_nothing),
    Theorem("look", "a hit of cost 0 is admitted, and changes no later decision", look_changes_nothing),
    Theorem("remaining", "the remaining cost would be admitted, and one more would not", remaining_is_exact),
    Theorem("reset", "a key decides as a new one after the reset, and not before", reset_is_exact),
    Theorem("step back", "a clock that steps back grants nothing", step_back_grants_nothing),
]
"""The theorems about any algorithm, in the order in which they are shown."""
