"""Mutants of pacing: functions with one mistake."""

from __future__ import annotations

from collections.abc import Callable

from mutate import Mutant, mutate

from ratelab.pacing import advice
from ratelab.pacing.advertised import Advertised
from ratelab.pacing.lane import RequestLane
from ratelab.pacing.pace import LearnedPace
from ratelab.pacing.pacer import Pacer
from ratelab.pacing.shared_state import SharedState

MUTANTS: dict[str, Callable[[], Mutant]] = {
    "the first requests are not bounded": lambda: mutate(
        LearnedPace, "ready_at", "if self.in_flight >= room:", "if False:"
    ),
    "a lost response holds others indefinitely": lambda: mutate(
        LearnedPace, "ready_at", "self.last_sent + PATIENCE_NS", "10**30"
    ),
    "requests are not spaced": lambda: mutate(LearnedPace, "send", "else now) + spacing", "else now)"),
    "the wait of a denial is ignored": lambda: mutate(
        LearnedPace, "_deny", "self.blocked_until = max(self.blocked_until, now + wait)", "pass"
    ),
    "denials in flight count one by one": lambda: mutate(
        LearnedPace, "_deny", "if sent.change != self.changes:", "if False:"
    ),
    "pauses do not grow": lambda: mutate(LearnedPace, "_deny", "PAUSE_FACTOR ** min(self.streak - 1, 50)", "1"),
    "a denial does not lower the rate": lambda: mutate(
        LearnedPace, "_lower_rate", "self._change(self.interval * (1 + 1.5 * self.step), rising=False)", "pass"
    ),
    "the rate is never raised": lambda: mutate(
        LearnedPace, "_raise_rate", "if self.run * self.step <", "if True or self.run * self.step <"
    ),
    "a rate that was denied is tried again at once": lambda: mutate(
        LearnedPace, "_raise_rate", "elif self.hold <= 0:", "else:"
    ),
    "requests that did not wait raise the rate": lambda: mutate(LearnedPace, "send", "paced = on_time and", "paced ="),
    "requests that are late raise the rate": lambda: mutate(
        LearnedPace, "send", "paced = on_time and", "paced = waited and"
    ),
    "a cached response is learned from": lambda: mutate(LearnedPace, "observe", "if advice.cached:", "if False:"),
    "the fastest policy sets the pace": lambda: mutate(
        Advertised, "read", "max(self.floor, shortest), max(interval, longest)", "shortest, longest"
    ),
    "fixed windows are not recognized": lambda: mutate(
        Advertised, "_find_fixed_window", "self.steady = True", "self.steady = False"
    ),
    "an epoch is read as a delay": lambda: mutate(advice, "_read_reset", "if value >= least:", "if False:"),
    "an epoch in the past is believed": lambda: mutate(advice, "_read_reset", "if delay > -2 else None", ""),
    "the clock of the client counts": lambda: mutate(
        advice, "_read_now", "return date if date is not None else", "return"
    ),
    "a huge time is believed": lambda: mutate(advice, "_to_ns", "or seconds > MAX_ADVISED_S", ""),
    "a malformed policy is skipped": lambda: mutate(
        advice,
        "_read_policies",
        'read_items(fields.get("ratelimit", ""), "r")',
        'read_items(fields.get("ratelimit", ""), "t")',
    ),
    "Retry-After does not take precedence": lambda: mutate(
        advice, "read_advice", "if retry_after is None:", "if True:"
    ),
    "a cancelled request keeps its place": lambda: mutate(RequestLane, "_leave", "self._turns.pop(turn, None)", "pass"),
    "the next request is not woken": lambda: mutate(
        RequestLane, "_leave", "wakes = following is not None and following.until is None", "wakes = False"
    ),
    "a response does not wake the first": lambda: mutate(
        RequestLane, "_wake", "ready_at < first.until else []", "False else []"
    ),
    "those that wait are not refused after a denial": lambda: mutate(RequestLane, "_wake", "if due:", "if False:"),
    "requests ahead are not counted": lambda: mutate(RequestLane, "_check", "int(ahead * pace.spacing)", "0"),
    "lanes in any number are kept": lambda: mutate(Pacer, "_forget_idle", "if excess > 0 else []", "if False else []"),
    "a store that is down stops requests": lambda: mutate(
        SharedState, "_change", "except StoreError:", "except KeyError:"
    ),
    "a time that was taken before a denial is used": lambda: mutate(
        RequestLane, "admit", "if self.state.pace.held_until <= turn.taken.at:", "if True:"
    ),
    "a time is taken only when it has come": lambda: mutate(
        RequestLane, "_approach", "until - self.state.ahead // 2", "until"
    ),
    "lessons are lost while a store is down": lambda: mutate(
        SharedState, "_change", "[*self._missed, *learned][:MAX_MISSED]", "[]"
    ),
    "two processes take the same time": lambda: mutate(SharedState, "_change_stored", "uuid4().hex", '""'),
    "a store that was emptied is learned again": lambda: mutate(
        SharedState, "_change_stored", "self._text or self.pace.dump()", "self._text"
    ),
    "changes of other processes are overwritten": lambda: mutate(
        SharedState, "_change_stored", "if stored == text:", "if True:"
    ),
}
