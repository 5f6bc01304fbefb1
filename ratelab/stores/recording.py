"""A limiter that records its decisions as JSON lines, so that a replay can check them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from operator import itemgetter
from threading import RLock
from typing import IO, Any, TypeVar

from ratelab.algorithms import Policy
from ratelab.clock import Clock
from ratelab.limiter import ROW_FIELDS, Admission, Costs, Decision, Keys
from ratelab.stores.arguments import name_costs, refuse_pickling
from ratelab.stores.forecast import Forecast
from ratelab.stores.fork import reset_in_children
from ratelab.stores.key_table import Stats
from ratelab.stores.memory import MemoryLimiter
from ratelab.stores.plans import Plans, Preparation, QuotaChanges
from ratelab.stores.recorded_calls import describe_decision, describe_plans, describe_quota, is_plain
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, Changes, Reservation, Ticket
from ratelab.stores.waiting import Waiting

T = TypeVar("T")

FORMAT_VERSION = 1
"""A recording is a header line with the quota, then a line for each decision."""

SEVERAL_VERSION = 2
"""The version of a recording of several policies, or of one with plans (`ratelab.stores.recorded_calls`)."""


class Reading:
    """The last reading of the clock by one hit, on which its decision is based."""

    def __init__(self) -> None:
        self.at_ns = 0
        self.number = 0
        """Its place in the order of all readings, which orders those of one time."""
        self.shared = False
        """Whether an overflow bucket decided the hit."""


class ObservedLimiter(MemoryLimiter):
    """A `MemoryLimiter` that notes the reading of each hit."""

    def __init__(
        self,
        policies: Policy | Sequence[Policy],
        clock: Clock | None,
        max_keys: int,
        plans: Mapping[str, QuotaChanges] | None,
        overrides: Mapping[str, QuotaChanges] | None,
    ) -> None:
        self.reading: Reading | None = None
        """That of the current hit."""
        self._readings = count()
        super().__init__(policies, clock, max_keys, plans=plans, overrides=overrides)

    def choose_clock(self, clock: Clock | None) -> Clock:
        """Return a clock that notes every reading; `plain_clock` is the one beneath it, which notes nothing."""
        self.plain_clock = read = super().choose_clock(clock)

        def read_and_note() -> int:
            now = read()
            if self.reading is not None:
                self.reading.at_ns, self.reading.number = now, next(self._readings)
            return now

        return read_and_note

    def note_time(self) -> None:
        """Note the time without a hit."""
        self._clock()

    def note_shared(self) -> None:
        """Note that the hit is decided by its overflow bucket."""
        if self.reading is not None:
            self.reading.shared = True


class RecordingLimiter:
    """A `MemoryLimiter` that writes a JSON line to `file` for each hit: `at_ns`, `key`, `cost` and the decision.

    `at_ns` is the time that the decision was based on. Hits of cost 0 charge nothing and are not recorded. Decisions by
    an overflow bucket are marked `shared`. If writing fails, recording ends, `failure` holds the reason, and hits are
    still decided. A hit that an exception interrupts may be missing. A forked child process records nothing.

    With several policies, or with `plans` or `overrides`, a recording has version 2. A line then also has the `plan`,
    `bound_by`, `shadow`, and in `policies` the decision of each; hits of cost 0 are recorded too, since they convert
    the used quota of a key that has another plan than before. With every version, settlements, refunds and updates have
    lines of their own, so that a replay charges the same costs at the same times.
    """

    def __init__(
        self,
        policies: Policy | Sequence[Policy],
        file: IO[str],
        clock: Clock | None = None,
        max_keys: int = 1_000_000,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        self._limiter = ObservedLimiter(policies, clock, max_keys, plans, overrides)
        self._file = file
        self._lock: Any = RLock()
        # Lines of the calls within the current one, and their order.
        self._lines: list[tuple[tuple[int, int], list[dict[str, object]]]] = []
        self._tickets = count(1)
        self.waiting = Waiting(clock)
        self.on_update: Callable[[Preparation], None] = self._limiter.on_update
        """Call a method before each `update`, as `MemoryLimiter.on_update` does."""
        reset_in_children(self)
        self.failure: str | None = None
        """Why recording ended early; None while it continues."""
        self._has_details = plans is not None or overrides is not None or not is_plain(self.policies)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        if self._has_details:
            header, *more = describe_plans(self.plans)
            self._write({"recording": SEVERAL_VERSION, **header, "started": started})
            for line in more:
                self._write(line)
        else:
            self._write({"recording": FORMAT_VERSION, **describe_quota(self.policy), "started": started})

    @property
    def policy(self) -> Policy:
        """The first of the policies."""
        return self._limiter.policy

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that this limiter enforces together."""
        return self._limiter.policies

    @property
    def plans(self) -> Plans:
        """The policies in force, with their quotas by plan and by key."""
        return self._limiter.plans

    @property
    def stats(self) -> Stats:
        """The current counters."""
        return self._limiter.stats

    __reduce__ = refuse_pickling

    def reset_after_fork(self) -> None:
        """Replace the lock, which no thread of this process will release, and stop recording.

        The file's buffer holds lines of the parent process, which writes them: in this process, they go nowhere.
        """
        if not self._lock._is_owned():
            self._lock = RLock()
        self.failure = self.failure or "a forked process does not record"
        with suppress(OSError, ValueError):  # a closed file, or one in memory
            descriptor = self._file.fileno()
            if descriptor > 2:  # not a standard stream
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor, inheritable=False)
                os.close(null)

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide as `MemoryLimiter.hit` does, and record the decision."""
        return self.hit_each(key, cost, plan)[0]

    def hit_each(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `MemoryLimiter.hit_each` does, and record the decision."""
        return self._record(
            lambda: self._limiter.hit_each(key, cost, plan),
            lambda result, reading: self._describe_hit(key, cost, plan, reading, *result),
        )

    def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Admission:
        """Wait as `MemoryLimiter.wait` does, and record the hit that is admitted."""
        return self.waiting.wait(self, key, cost, timeout, plan, self._forecast)

    def _forecast(self, keys: Mapping[str, str], plan: str | None) -> Forecast:
        with self._lock:
            limiter = self._limiter
            outer, limiter.reading = limiter.reading, None  # of a hit that this call interrupts
            try:
                return limiter.forecast(keys, plan)
            finally:
                limiter.reading = outer

    def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> Ticket:
        """Decide and charge as `MemoryLimiter.reserve` does; record the decision, and the settlement of the ticket."""
        limiter, number = self._limiter, next(self._tickets)
        self._has_details = True
        ticket, _ = self._record(
            lambda: limiter.reserve_each(key, cost, plan, deadline),
            lambda result, reading: [
                {**line, "ticket": number}
                for line in self._describe_hit(key, cost, plan, reading, result[0].decision, result[1])
            ],
        )

        def settle(changes: Changes) -> bool:
            actual = {name: ticket.reserved[name] + change for name, change in changes.items()}
            return self._record(
                lambda: ticket.settle(actual),
                lambda done, reading: [{"at_ns": reading.at_ns, "ticket": number, "settled": actual}] if done else [],
            )

        return Ticket(Reservation(ticket.decision, ticket.reserved, deadline, limiter.plain_clock), settle)

    def refund(self, key: Keys, cost: Costs = 1) -> None:
        """Return `cost` to the quotas of `key` as `MemoryLimiter.refund` does, and record it."""
        self._has_details = True
        self._record(
            lambda: self._limiter.refund(key, cost),
            lambda _, reading: [{"at_ns": reading.at_ns, "key": _copy(key), "refund": _copy(cost)}],
        )

    def update(
        self,
        policies: Policy | Sequence[Policy] | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        """Replace the policies, plans or overrides as `MemoryLimiter.update` does, and record them."""

        def update() -> None:
            self._limiter.update(policies, plans=plans, overrides=overrides)
            self._limiter.note_time()  # which orders the lines

        self._has_details = True
        self._record(update, lambda *_: [*describe_plans(self.plans)])

    def _describe_hit(
        self,
        key: Keys,
        cost: Costs,
        plan: str | None,
        reading: Reading,
        decision: Decision,
        each: Sequence[Decision],
    ) -> list[dict[str, object]]:
        """Return the line of a hit, unless it need not be recorded."""
        if self._has_details:
            asked = [policy.name for policy in self.policies if isinstance(key, str) or policy.name in key]
            line = {"at_ns": reading.at_ns, "key": _copy(key), "cost": _copy(cost)}
            line |= ({} if plan is None else {"plan": plan}) | describe_decision(decision, each, asked)
        else:
            if not isinstance(key, str):
                (key,) = key.values()
            if not isinstance(cost, int):
                (cost,) = name_costs(self.policies, cost).values()
            if not cost:
                return []
            line = {"at_ns": reading.at_ns, "key": key, "cost": cost}
            line |= zip(ROW_FIELDS, decision, strict=False)
        if reading.shared:
            line["shared"] = True
        return [line]

    def _record(self, call: Callable[[], T], describe: Callable[[T, Reading], list[dict[str, object]]]) -> T:
        """Return the result of a call, and write the lines that describe it."""
        with self._lock:
            limiter, reading = self._limiter, Reading()
            outer = limiter.reading
            try:
                limiter.reading = reading
                result = call()
                self._lines.append(((reading.at_ns, reading.number), describe(result, reading)))
                return result
            finally:
                limiter.reading = outer
                if outer is None:
                    self._write_lines()

    def flush(self) -> None:
        """Flush the file."""
        with self._lock:
            try:
                self._file.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            try:
                self._file.close()
            except (OSError, ValueError) as error:
                self._fail(error)

    def _write_lines(self) -> None:
        """Write the lines of a call and of those within it, in the order of their times."""
        while self._lines:
            first = min(self._lines, key=itemgetter(0))
            self._lines.remove(first)
            for line in first[1]:
                self._write(line)

    def _write(self, line: dict[str, object]) -> None:
        if self.failure is None:
            try:
                self._file.write(json.dumps(line) + "\n")
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: OSError | ValueError) -> None:
        self.failure = self.failure or (isinstance(error, OSError) and error.strerror) or str(error)


def _copy(given: Keys | Costs) -> object:
    """Return a key or a cost as JSON can hold it."""
    return dict(given) if isinstance(given, Mapping) else given
