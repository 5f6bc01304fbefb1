"""One decision in a few words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from rich.text import Text

from ratelab.limiter import NEVER, Decision
from ratelab.quota import about, format_duration


def decided(decision: Decision, told: Callable[[int], str] = about) -> Text:
    """Return a decision on two or three short lines, its times written by `told`."""
    if decision.allowed:
        delay = f"\nleaves after {told(decision.delay_ns)}" if decision.delay_ns else ""
        return Text(f"admitted\n{decision.remaining} left{delay}", style="green")
    return Text(f"denied\n{_wait(decision.retry_after_ns, told)}", style="red")


def telling(decision: Decision | None, other: Decision | None) -> list[str]:
    """Return a decision's lines, its times exact; if `other` has the same and yet differs, with what they leave out."""
    if decision is None:
        return ["no decision"]
    lines = decided(decision, format_duration).plain.splitlines()
    if other is None or lines != decided(other, format_duration).plain.splitlines():
        return lines
    return [*lines, *islice(_left_out(decision, other), 1)]


def _left_out(decision: Decision, other: Decision) -> Iterator[str]:
    """Yield the fields that differ and are not among a decision's lines."""
    if decision.remaining != other.remaining:
        yield f"{decision.remaining} left"
    if decision.retry_after_ns != other.retry_after_ns:
        yield _wait(decision.retry_after_ns, format_duration)
    if decision.reset_after_ns != other.reset_after_ns:
        yield f"new after {format_duration(decision.reset_after_ns)}"
    if decision.delay_ns != other.delay_ns:
        yield f"a delay of {format_duration(decision.delay_ns)}"


def moment(at: int) -> str:
    """Write a time exactly, which may lie before 0."""
    return format_duration(at) if at >= 0 else f"-{format_duration(-at)}"


def _wait(retry_after: int, told: Callable[[int], str]) -> str:
    return "no wait helps" if retry_after == NEVER else f"wait {told(retry_after)}"
