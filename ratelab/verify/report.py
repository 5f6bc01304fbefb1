"""Whether a live endpoint does what the simulation says, for a person and as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, about
from ratelab.report.serialize import quota_object
from ratelab.report.summary import counted
from ratelab.report.tables import heading
from ratelab.verify.agreement import Agreement, Spread
from ratelab.verify.header_checks import KINDS

MOST_SHOWN = 10
"""Differing requests that a person is shown."""

NOTICEABLE = 20_000_000
"""Nanoseconds of lateness that are told as a reason."""


@dataclass(frozen=True, eq=False)
class VerifyReport:
    """An agreement, and what it is about."""

    agreement: Agreement
    quota: Quota
    traffic: Traffic
    """As it was played."""
    algorithm: str
    scenario: str
    seed: int
    url: str
    header: str
    """The header that told the server's clients apart."""
    speed: float


def verdict_object(verdict: VerifyReport) -> dict[str, Any]:
    """Return the whole verdict as `--json` prints it; times are in seconds."""
    agreement = verdict.agreement
    return {
        "version": 1,
        "scenario": verdict.scenario,
        "seed": verdict.seed,
        "url": verdict.url,
        "algorithm": verdict.algorithm,
        "quota": quota_object(verdict.quota),
        "speed": verdict.speed,
        "duration": verdict.traffic.duration / 1e9,
        "requests": agreement.requests,
        "agreeing": agreement.agreeing,
        "agreement": agreement.agreeing / agreement.requests,
        "close_calls": agreement.close_calls,
        "errors": agreement.errors,
        "used_keys": agreement.used,
        "differing": [{**one._asdict(), "at": one.at / 1e9} for one in agreement.differing],
        "faults": [
            {"kind": fault.kind, "count": fault.count, "examples": [one._asdict() for one in fault.examples]}
            for fault in agreement.faults
        ],
        "latency": _in_seconds(agreement.latency),
        "lateness": _in_seconds(agreement.lateness),
    }


def verdict_text(verdict: VerifyReport) -> RenderableType:
    """Return what a person is told: how many answers agree, which do not, and why that may be."""
    agreement = verdict.agreement
    parts: list[RenderableType] = [
        Text(f"{verdict.scenario} against {verdict.url}, {verdict.algorithm}", style="bold"),
        Text(heading(Comparison(verdict.quota, verdict.traffic, (), {}))),
        Text(),
        Text(_headline(agreement), style="bold red" if agreement.differing else "bold green"),
    ]
    if agreement.differing:
        parts += [_differing_table(agreement), Text()]
    if agreement.faults:
        parts += [Text("header fields with faults", style="bold red"), _faults_table(agreement), Text()]
    else:
        parts.append(Text("header fields as they should be", style="green"))
    parts += [Text(line) for line in _times(agreement)]
    parts += [Text(f"\n{hint}") for hint in _hints(verdict)]
    return Group(*parts)


def _headline(agreement: Agreement) -> str:
    share = agreement.agreeing / agreement.requests
    percent = "100" if not agreement.differing else f"{min(99.9, 100 * share):.3g}"
    told = f"{agreement.agreeing:,} of {counted(agreement.requests, 'answer')} as simulated ({percent} %)"
    if agreement.close_calls == len(agreement.differing) > 0:
        return f"{told}, the rest {'a close call' if agreement.close_calls == 1 else 'close calls'}"
    return f"{told}, {counted(agreement.close_calls, 'close call')} among the rest" if agreement.close_calls else told


def _differing_table(agreement: Agreement) -> RenderableType:
    table = _table("request", "at", "client", "simulated", "answered", "")
    for one in agreement.differing[:MOST_SHOWN]:
        note = "close call" if one.close_call else ""
        client, answered = escape(one.client), escape(one.answered)
        table.add_row(f"{one.request:,}", f"{one.at / 1e9:.3f}s", client, one.simulated, answered, note)
    more = len(agreement.differing) - MOST_SHOWN
    return Group(table, *([Text(f"... and {more:,} more")] if more > 0 else []))


def _faults_table(agreement: Agreement) -> Table:
    table = _table("answers", "fault", "such as")
    for fault in agreement.faults:
        example = fault.examples[0]
        such = f"request {example.request:,}, {example.client}: {example.told}"
        table.add_row(f"{fault.count:,}", KINDS[fault.kind], escape(such))
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in ("request", "at", "answers") else "left")
    return table


def _times(agreement: Agreement) -> Iterator[str]:
    for name, spread in (("latency", agreement.latency), ("sent late by", agreement.lateness)):
        if spread is not None:
            told = "  ".join(f"{share} {about(value)}" for share, value in spread._asdict().items())
            yield f"{name + ':':13} {told}"


def _hints(verdict: VerifyReport) -> Iterator[str]:
    """Yield what may be behind what was found, and what to do."""
    agreement, header = verdict.agreement, verdict.header
    keys = len(set(verdict.traffic.keys[verdict.traffic.clients].tolist()))
    remedy = f"run the server with --key header:{header}"
    if agreement.used and keys > 1:
        yield (
            f"{agreement.used:,} of {counted(keys, 'client')} were not new to the server, as if they shared a quota: "
            f"{remedy}, or name with --key the header that it tells clients apart by."
        )
    elif agreement.used:
        yield (
            "The client was not new to the server, which had counted requests of its before: "
            f"wait until its quota has come back, or {remedy}."
        )
    if agreement.close_calls and not agreement.used:
        yield (
            f"{counted(agreement.close_calls, 'close call')}: asked at some time between a request's sending and its "
            "answer, the algorithm decides as the server did. The scenario asks just when quota comes back."
        )
    if agreement.differing and agreement.lateness and agreement.lateness.max > NOTICEABLE:
        yield f"Requests were sent up to {about(agreement.lateness.max)} late: lower --speed, or use a quieter machine."


def _in_seconds(spread: Spread | None) -> dict[str, float] | None:
    return spread and {share: value / 1e9 for share, value in spread._asdict().items()}
