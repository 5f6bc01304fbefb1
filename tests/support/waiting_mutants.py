"""Named bugs in waiting, each of which a test must catch."""

from __future__ import annotations

from mutate import Mutant, mutate

from ratelab.stores import waiting_lines
from ratelab.stores.sleepers import TaskSleeper, ThreadSleeper
from ratelab.stores.waiting_lines import Lines, Waiter, WaitingLine

MUTANTS: dict[str, Mutant] = {
    "a later request overtakes": mutate(Lines, "_join", "line.turn = line.turn or waiter", "line.turn = waiter"),
    "a cancelled request keeps its place": mutate(Lines, "_leave", "if waiter in line.waiters:", "if admitted:"),
    "the next is not woken": mutate(Lines, "_leave", "if line.turn.wake():", "if True:"),
    "a request asks without a pause": mutate(Lines, "_sleep", "yield Sleep(due)", "yield Sleep(0)"),
    "a request asks a nanosecond early": mutate(
        Lines, "_take_turn", "decision.retry_after_ns", "decision[2] - (decision[2] > 1)"
    ),
    "a time-out is one nanosecond longer": mutate(
        Waiter, "check", "now + wait > self.deadline", "now + wait > self.deadline + 1"
    ),
    "a time-out does not count those ahead": mutate(WaitingLine, "predict", "max(due, after.now + self.offset)", "due"),
    "a time-out does not count a later delay": mutate(Waiter, "check", "forecast is not None", "False"),
    "those behind wait longer than they can": mutate(Lines, "_postpone", "[0][0] < due", "[0][0] < 0"),
    "a delay is not slept": mutate(Lines, "_queue", "if decision.delay_ns:", "if False:"),
    "a cancelled delay stays charged": mutate(Lines, "_queue", "waiter.give_back()", "pass"),
    "a refused request has been charged": mutate(Lines, "_preview", "if waiter.forecast is not None:", "if False:"),
    "a forecast survives a cancellation": mutate(Lines, "_leave", "if admitted else None", ""),
    "a forecast is trusted although the first has woken up": mutate(
        WaitingLine, "predict", "self.due != due or after is None", "after is None"
    ),
    "a cost above the burst waits for its turn": mutate(Waiter, "needs_turn", "return fits and", "return"),
    "a client of a store comes early": mutate(
        Lines, "_take_turn", "due += random.randint(0,", "due -= random.randint(0,"
    ),
    "clients of a store come at once": Mutant(waiting_lines, "MAX_JITTER_NS", 0),
    "a child process waits for its parent's requests": mutate(Lines, "reset_after_fork", "self._lines = {}", "pass"),
    "a thread misses that it is woken": mutate(ThreadSleeper, "wake", "self._asleep.release()", "pass"),
    "a task misses that it is woken": mutate(TaskSleeper, "wake", "self._awake.set", "int"),
}
