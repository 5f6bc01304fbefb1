"""Proof of an algorithm as text for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType, group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ratelab.learn.verdict import decision_text, format_signed_time
from ratelab.limiter import ROW_FIELDS
from ratelab.prove import PROVED, REFUTED, UNDECIDED, Event, Finding, Proof
from ratelab.report.numbers import pluralize

MARKS = {PROVED: ("+", "green"), REFUTED: ("x", "red"), UNDECIDED: ("?", "yellow")}

MAX_STATE_NUMBERS = 12
"""Numbers of a state that are shown; a longer one is cut."""


@group()
def render_proof(proof: Proof) -> Iterator[RenderableType]:
    """Render the theorems with their marks, and each refuting timeline below them."""
    yield Text(f"{proof.algorithm} at {proof.quota}", style="bold")
    yield Text(f"For all states, times and costs{f', {proof.scope}' if proof.scope else ''}:\n")
    theorems = Table.grid(padding=(0, 2, 0, 0))
    for finding in proof.findings:
        mark, style = MARKS[finding.status]
        theorems.add_row(Text(mark, style=style), Text(finding.name, style=style), Text(_describe(finding)))
    yield theorems
    if proof.invariants:
        yield Text(f"\nInvariants of every state, by induction over hits: {', '.join(proof.invariants)}.")
    for finding in proof.findings:
        if finding.status == REFUTED:
            yield Padding(Text(f"Refuted: {_describe(finding)}", style="bold red"), (1, 0, 0, 0))
            yield Text(f"The shortest timeline found, at {finding.quota}, as the step decides it:\n")
            yield _render_timeline(proof, finding)
    yield Text(f"\n{summarize_proof(proof)}", style="bold")


def _describe(finding: Finding) -> str:
    return f"{finding.meaning} ({finding.reason})" if finding.reason else finding.meaning


def summarize_proof(proof: Proof) -> str:
    """Return the number of theorems that are proved, refuted and undecided as a sentence."""
    counts = {status: sum(one.status == status for one in proof.findings) for status in MARKS}
    if proof.is_complete:
        subject = f"All {counts[PROVED]} theorems are" if counts[PROVED] > 1 else "The theorem is"
        return f"{subject} proved{f' {proof.scope}' if proof.scope else ''}."
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    return f"Of {pluralize(len(proof.findings), 'theorem')}: {', '.join(parts)}."


def _render_timeline(proof: Proof, finding: Finding) -> Table:
    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    for name in ("time", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("decision", "state afterwards", ""):
        table.add_column(name)
    table.add_row(
        format_signed_time(finding.origin), "", "", _format_state(proof.state, finding.new_state), "a new key"
    )
    for number, event in enumerate(finding.timeline):
        decision = Text("\n".join(list_decision_lines(finding.timeline, number)))
        decision.stylize("green" if event.decision.allowed else "red")
        state = "" if event.by else _format_state(proof.state, event.state)
        note = ": ".join(part for part in (event.by, event.note) if part)
        table.add_row(format_signed_time(event.at), str(event.cost), decision, state, note)
    return table


def list_decision_lines(timeline: Sequence[Event], number: int) -> list[str]:
    """Format a decision; add the reset if it is the last one, or if only that differs from the one compared."""
    event = timeline[number]
    lines = decision_text(event.decision, format_signed_time).plain.splitlines()
    compared = [timeline[place] for place in (number - 1, number + 1) if 0 <= place < len(timeline)]
    pair = next((one for one in compared if (one.at, one.cost) == (event.at, event.cost) and one.by != event.by), None)
    is_last = number == len(timeline) - 1
    if is_last or (pair and pair.decision != event.decision):
        lines.append(f"reset after {format_signed_time(event.decision.reset_after_ns)}")
    return lines


def _format_state(names: Sequence[str], state: Sequence[int]) -> str:
    if len(names) == len(state):
        return "\n".join(f"{name} {value}" for name, value in zip(names, state, strict=True))
    shown = [str(value) for value in state[:MAX_STATE_NUMBERS]]
    return " ".join([*shown, *([".."] if len(state) > MAX_STATE_NUMBERS else [])])


def serialize_proof(proof: Proof) -> dict[str, Any]:
    """Return the proof as `ratelab prove --json` prints it."""
    return {
        "version": 1,
        "algorithm": proof.algorithm,
        "quota": proof.quota,
        "scope": proof.scope,
        "is_proved": proof.is_complete,
        "state": list(proof.state),
        "invariants": list(proof.invariants),
        "theorems": [_serialize_finding(finding) for finding in proof.findings],
    }


def _serialize_finding(finding: Finding) -> dict[str, Any]:
    row: dict[str, Any] = {"name": finding.name, "meaning": finding.meaning, "status": finding.status}
    if finding.reason:
        row["reason"] = finding.reason
    if finding.status == REFUTED:
        row |= {"quota": finding.quota, "origin_ns": finding.origin, "new_state": list(finding.new_state)}
        row["timeline"] = [_serialize_event(event) for event in finding.timeline]
    return row


def _serialize_event(event: Event) -> dict[str, Any]:
    decision = dict(zip(ROW_FIELDS, event.decision.row, strict=True))
    return {
        "at_ns": event.at,
        "cost": event.cost,
        **decision,
        "state": list(event.state),
        "by": event.by,
        "note": event.note,
    }
