"""One decision in a few words."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text

from ratelab.limiter import NEVER, Decision
from ratelab.quota import about


def decided(decision: Decision, told: Callable[[int], str] = about) -> Text:
    """Return a decision on two or three short lines, its times written by `told`."""
    if decision.allowed:
        delay = f"\nleaves after {told(decision.delay_ns)}" if decision.delay_ns else ""
        return Text(f"admitted\n{decision.remaining} left{delay}", style="green")
    wait = "no wait helps" if decision.retry_after_ns == NEVER else f"wait {told(decision.retry_after_ns)}"
    return Text(f"denied\n{wait}", style="red")
