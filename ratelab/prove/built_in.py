"""Facts about the states of the built-in algorithms that proofs need: invariants, and the credits that they hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ratelab.algorithms.calendar_window import CalendarWindow
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.limiter import Algorithm
from ratelab.prove.scene import Scene, Subject, Theorem
from ratelab.prove.terms import Number, Truth, all_of, choose, divide, greatest, implies, least, modulo, same_each
from ratelab.prove.theorems import ObservedWindow, equals

Invariants = list[tuple[str, Truth]]
"""Properties of every state, with their texts."""


class Representative(NamedTuple):
    """States of which there is one for each state that decides as it does."""

    is_one: Callable[[Sequence[Number]], Truth]
    theorem: Theorem
    """The theorem that every state decides as its representative."""


class Knowledge(NamedTuple):
    """Facts about the states of one built-in algorithm."""

    invariants: Callable[[Any, Sequence[Number], Number], Invariants]
    """Return the properties of a state, given the algorithm and the latest time that the state has seen."""
    relate: Callable[[Scene, Sequence[Number], ObservedWindow], list[Truth]]
    """Return how a state agrees with the cost that a window has admitted."""
    theorems: Callable[[Subject], list[Theorem]]
    """Return the theorems about this algorithm alone."""
    view: Callable[[Any, Sequence[Number]], list[Number]]
    """Return the numbers on which decisions depend."""
    largest_burst: int | None = None
    """The largest burst for which theorems are proved."""
    representative: Representative | None = None
    """States to which the others are reduced, before the theorems are proved."""


def keeps_invariants(knowledge: Knowledge) -> Theorem:
    """Return the theorem that every state has the properties that are known of it."""

    def list_all(scene: Scene) -> Invariants:
        return knowledge.invariants(scene.algorithm, scene.state, scene.latest)

    def claim(scene: Scene) -> Truth:
        return all_of(*(term for _, term in list_all(scene)))

    def explain(scene: Scene) -> str:
        return f"violated: {', '.join(text for text, term in list_all(scene) if not term)}"

    meaning = "every state stays within its limits, from that of a new key on"
    return Theorem("invariants", meaning, claim, explain=explain)


def _same_state(_algorithm: Any, state: Sequence[Number]) -> list[Number]:
    return [*state]


# --- token bucket and GCRA: credits that are held


def _potential(held: Callable[[Any, Sequence[Number], Number], Number]) -> Theorem:
    """Return the theorem that no hit spends credits that were neither held nor earned."""

    def claim(scene: Scene) -> Truth:
        algorithm, now = scene.algorithm, scene.time("now", scene.latest)
        hit = scene.hit(scene.state, now, scene.cost("cost"))
        spent = choose(hit.decision.allowed, hit.cost * algorithm.period, 0)
        earned = (now - scene.latest) * algorithm.limit
        return spent + held(algorithm, hit.after, now) <= held(algorithm, scene.state, scene.latest) + earned

    return Theorem("potential", "a hit spends at most the credits held before and earned since", claim)


def _tokens_held(bucket: Any, state: Sequence[Number], now: Number) -> Number:
    return least(state[0] + (now - state[1]) * bucket.limit, bucket.capacity)


def _token_invariants(bucket: Any, state: Sequence[Number], latest: Number) -> Invariants:
    tokens, time = state
    return [
        ("0 <= tokens", tokens >= 0),
        ("tokens <= capacity", tokens <= bucket.capacity),
        ("time = latest time", time == latest),
    ]


def _relate_tokens(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    bucket = scene.algorithm
    earned = (window.latest - window.first) * bucket.limit
    return [implies(window.is_open, window.admitted * bucket.period + state[0] <= bucket.capacity + earned)]


def _credit_held(gcra: Any, state: Sequence[Number], now: Number) -> Number:
    clock = now * gcra.limit
    return gcra.tolerance - (greatest(state[0], clock) - clock)


def _gcra_invariants(gcra: Any, state: Sequence[Number], latest: Number) -> Invariants:
    clock = latest * gcra.limit
    return [
        ("latest time x limit <= arrival time", state[0] >= clock),
        ("arrival time <= latest time x limit + tolerance", state[0] <= clock + gcra.tolerance),
    ]


def _relate_gcra(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    gcra = scene.algorithm
    held = gcra.tolerance - (state[0] - window.latest * gcra.limit)
    earned = (window.latest - window.first) * gcra.limit
    return [implies(window.is_open, window.admitted * gcra.period + held <= gcra.tolerance + earned)]


def _equals_token_bucket(subject: Subject) -> Theorem:
    def relate(scene: Scene, other: list[Number], state: Sequence[Number], latest: Number) -> list[Truth]:
        tokens, time = other
        gcra = scene.algorithm
        owed = state[0] - latest * gcra.limit
        return [time == latest, gcra.tolerance - tokens == choose(owed > 0, owed, 0)]

    return equals(TokenBucket.from_quota(subject.quota), relate)


# --- leaky bucket: work that is queued


def _leaky_invariants(queue: Any, state: Sequence[Number], latest: Number) -> Invariants:
    level, time = state
    return [
        ("0 <= level", level >= 0),
        ("level <= capacity", level <= queue.capacity),
        ("time = latest time", time == latest),
    ]


def _relate_queue(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    queue = scene.algorithm
    drained_at = state[0] + window.latest * queue.limit  # when the queue is empty, in credits
    drained_before = (window.first - 1) * queue.limit
    return [implies(window.admitted > 0, window.admitted * queue.period <= drained_at - drained_before - 1)]


def _queue_delay(scene: Scene) -> Truth:
    """Conclude that an admitted request waits until the queue ahead of it has drained, and no longer."""
    queue, now = scene.algorithm, scene.time("now", scene.latest)
    hit = scene.hit(scene.state, now, scene.cost("cost"))
    ahead = greatest(scene.state[0] - (now - scene.state[1]) * queue.limit, 0)
    delay, drained = hit.decision.delay_ns, hit.decision.delay_ns * queue.limit
    exact = all_of(drained >= ahead, implies(delay > 0, drained - queue.limit < ahead))
    return implies(hit.decision.allowed, exact)


DELAY = Theorem("delay", "an admitted request waits until those ahead of it have drained, no longer", _queue_delay)


# --- windows: counters


def _window_invariants(counter: Any, state: Sequence[Number], latest: Number) -> Invariants:
    index, used = state
    return [
        ("window = window of the latest time", index == divide(latest, counter.window)),
        ("0 <= used", used >= 0),
        ("used <= burst", used <= counter.burst),
    ]


def _relate_window(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    counter, begins_in = scene.algorithm, divide(window.first, scene.algorithm.window)
    return [
        implies(state[0] == begins_in, window.admitted <= state[1]),
        implies(state[0] == begins_in + 1, window.admitted <= counter.burst + state[1]),
    ]


def _calendar_invariants(counter: Any, state: Sequence[Number], latest: Number) -> Invariants:
    """Return what holds for windows of one length; `prove` rejects others."""
    (begin,), (length,), (end, used) = counter.starts, counter.lengths, state
    return [
        ("latest time < end of the window", latest < end),
        ("end of the window <= latest time + length", end <= latest + length),
        ("windows begin where the calendar has them", modulo(end - begin, length) == 0),
        ("0 <= used", used >= 0),
        ("used <= burst", used <= counter.burst),
    ]


def _relate_calendar(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    counter = scene.algorithm
    (begin,), (length,) = counter.starts, counter.lengths
    first_end = window.first + length - modulo(window.first - begin, length)
    return [
        implies(state[0] == first_end, window.admitted <= state[1]),
        implies(state[0] == first_end + length, window.admitted <= counter.burst + state[1]),
    ]


def _counter_invariants(counter: Any, state: Sequence[Number], latest: Number) -> Invariants:
    index, previous, current = state
    elapsed = latest - index * counter.window
    estimate = previous * (counter.window - elapsed) + current * counter.window
    return [
        ("window = window of the latest time", index == divide(latest, counter.window)),
        ("0 <= previous", previous >= 0),
        ("0 <= current", current >= 0),
        ("previous <= burst", previous <= counter.burst),
        ("current <= burst", current <= counter.burst),
        ("estimate <= burst", estimate <= counter.burst * counter.window),
        ("previous + current <= 2 x burst - 1", previous + current <= 2 * counter.burst - 1),
    ]


def _relate_counter(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    begins_in = divide(window.first, scene.algorithm.window)
    return [
        implies(state[0] == begins_in, window.admitted <= state[2]),
        implies(state[0] == begins_in + 1, window.admitted <= state[1] + state[2]),
    ]


# --- sliding log: a ring of times


def _rotate(log: Any, state: Sequence[Number]) -> list[Number]:
    """Return the entries of the ring from the newest to the oldest, without the reserved place."""
    head, ring, size = state[0], state[3:], log.burst + 1
    newest_first = [[ring[(place - 1 - age) % size] for place in range(size)] for age in range(log.burst)]
    return [_pick(head, by_head) for by_head in newest_first]


def _pick(place: Number, values: Sequence[Number]) -> Number:
    value = values[-1]
    for number in range(len(values) - 1):
        value = choose(place == number, values[number], value)
    return value


def _count(log: Any, state: Sequence[Number]) -> Number:
    """Return the number of entries between the oldest and the head."""
    length = state[0] - state[2]
    return choose(length < 0, length + log.burst + 1, length)


def _log_invariants(log: Any, state: Sequence[Number], latest: Number) -> Invariants:
    head, time, oldest = state[:3]
    entries, count = _rotate(log, state), _count(log, state)
    ordered = [older <= newer for newer, older in zip([latest, *entries], entries, strict=False)]
    expired = [
        (choose(count > age, entry + log.window > latest, entry + log.window <= latest))
        for age, entry in enumerate(entries)
    ]
    return [
        ("0 <= head <= burst", all_of(head >= 0, head <= log.burst)),
        ("0 <= oldest <= burst", all_of(oldest >= 0, oldest <= log.burst)),
        ("time = latest time", time == latest),
        ("entries are in order", all_of(*ordered)),
        ("entries from the oldest to the head are younger than a window, and no others", all_of(*expired)),
    ]


def _view_log(log: Any, state: Sequence[Number]) -> list[Number]:
    time = state[1]
    entries = [greatest(entry, time - log.window) for entry in _rotate(log, state)]
    return [time, _count(log, state), *entries]


def _decides_as_unrotated(scene: Scene) -> Truth:
    """Conclude that a state decides as the one whose ring is turned so that its head is 0."""
    log, (head, time, _, *ring) = scene.algorithm, scene.state
    size, count = log.burst + 1, _count(log, scene.state)
    reserved, newest_first = _pick(head, ring), _rotate(log, scene.state)
    turned = [0, time, choose(count == 0, 0, size - count), reserved, *reversed(newest_first)]
    now, cost = scene.time("now"), scene.cost("cost")
    first, second = scene.hit(scene.state, now, cost), scene.hit(turned, now, cost, by="with the head at 0")
    alike = same_each(first.decision.row, second.decision.row)
    return all_of(alike, scene.observes or same_each(scene.view(first.after), scene.view(second.after)))


_UNROTATED = Representative(
    lambda state: state[0] == 0,
    Theorem("ring", "decisions do not depend on the place of the head in the ring", _decides_as_unrotated),
)


def _relate_log(scene: Scene, state: Sequence[Number], window: ObservedWindow) -> list[Truth]:
    counted = sum(choose(entry >= window.first, 1, 0) for entry in _rotate(scene.algorithm, state))
    return [implies(window.latest < window.first + window.length, window.admitted <= counted)]


KNOWN: dict[type[Algorithm], Knowledge] = {
    TokenBucket: Knowledge(_token_invariants, _relate_tokens, lambda _: [_potential(_tokens_held)], _same_state),
    LeakyBucket: Knowledge(_leaky_invariants, _relate_queue, lambda _: [DELAY], _same_state),
    FixedWindow: Knowledge(_window_invariants, _relate_window, lambda _: [], _same_state),
    CalendarWindow: Knowledge(_calendar_invariants, _relate_calendar, lambda _: [], _same_state),
    SlidingLog: Knowledge(_log_invariants, _relate_log, lambda _: [], _view_log, 3, _UNROTATED),
    SlidingCounter: Knowledge(_counter_invariants, _relate_counter, lambda _: [], _same_state),
    Gcra: Knowledge(
        _gcra_invariants,
        _relate_gcra,
        lambda subject: [_potential(_credit_held), _equals_token_bucket(subject)],
        _same_state,
    ),
}
"""By class of a built-in algorithm."""
