"""Recorded times are those of the decisions, whatever other calls read the clock in between."""

from __future__ import annotations

import io
import json
from itertools import count

from test_memory_interrupts import Interrupter

from ratelab import ManualClock, Policy
from ratelab.quota import NS_PER_S
from ratelab.stores.recording import RecordingLimiter


def test_a_late_settlement_during_a_hit_does_not_change_its_time() -> None:
    policy, start, step = Policy.create("token-bucket", "1/s", 5), 10 * NS_PER_S, NS_PER_S // 10
    for moment in count(0, 3):
        clock, file = ManualClock(start), io.StringIO()
        limiter = RecordingLimiter(policy, file, clock)
        ticket = limiter.reserve("bob", deadline=1)
        limiter.hit("alice")  # replenished after a second
        clock.advance(step)

        def settle() -> None:
            clock.advance(2 * NS_PER_S)  # noqa: B023  (called in this turn)
            assert not ticket.settle(0)  # noqa: B023

        interrupter = Interrupter(moment, settle)
        interrupter.run(lambda: limiter.hit("alice"))  # noqa: B023
        line = json.loads(file.getvalue().splitlines()[-1])
        late = line["at_ns"] != start + step
        assert line["reset_after_ns"] == (NS_PER_S if late else 2 * NS_PER_S - step)
        if not interrupter.acted:
            assert moment > 50
            return
