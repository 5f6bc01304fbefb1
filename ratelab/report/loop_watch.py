"""Playback of a closed loop: frames for a terminal, and a line for each try for any other output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from ratelab.lab.closed_loop.outcome import PENDING, SUCCESS, LoopOutcome, observe_server
from ratelab.lab.spill import Integers
from ratelab.quota import NS_PER_S
from ratelab.report.charts.loop_view import LoopView
from ratelab.report.loops import TRY_RESULTS, name_rows
from ratelab.report.numbers import format_per_second, format_seconds
from ratelab.report.timeline import ADMITTED, DELAYED, DENIED, NO_REQUEST, SOME_DENIED, render_legend, render_letters
from ratelab.report.watch import format_bar

MAX_NAME_COLUMNS = 24

TRY_MEANINGS = {
    ADMITTED: "all served",
    DELAYED: "some unanswered",
    SOME_DENIED: "some failed",
    DENIED: "all failed",
    NO_REQUEST: "no try",
}
"""The meanings of the letters for tries."""


class LoopSnapshot(NamedTuple):
    """The state of a run at one time."""

    tries: int
    """Tries that have reached the limiter."""
    denied: int
    waiting: int
    """Requests that wait to be tried again."""
    in_service: int
    queued: int
    """Tries in the queue of the server."""
    begun: float
    """Requests that began in a second, lately."""
    goodput: float
    """Requests that were served in a second, lately."""


class RunPlayback:
    """The states of a finished run at any time."""

    def __init__(self, outcome: LoopOutcome, span: int) -> None:
        requests = outcome.requests
        self.outcome, self._span = outcome, span
        self._arrived = outcome.traffic.times
        self._denied = self._arrived[~outcome.admissions["allowed"]]
        self._started, self._ended = requests.started, np.sort(requests.ended[requests.ended >= 0])
        self._served = np.sort(requests.ended[requests.results == SUCCESS])
        self._sent, self._answered = list_awaited_spans(outcome)
        self._server = observe_server(outcome)

    def read(self, now: int) -> LoopSnapshot:
        """Return the state at a time, with what happens at that very time."""
        waiting, in_service, queued = self.read_all(np.array([now]))[0].tolist()
        since, length = now - self._span, max(1, min(now, self._span)) / NS_PER_S
        begun, goodput = (_count(times, now) - _count(times, since) for times in (self._started, self._served))
        tries, denied = _count(self._arrived, now), _count(self._denied, now)
        return LoopSnapshot(tries, denied, waiting, in_service, queued, begun / length, goodput / length)

    def read_all(self, moments: Integers) -> Integers:
        """Return the numbers of requests that wait, of tries in service and of those in the queue, for each time."""
        places = [
            np.searchsorted(times, moments, side="right")
            for times in (self._started, self._ended, self._sent, self._answered)
        ]
        waiting = places[0] - places[1] - places[2] + places[3]
        states = self._server[1:][:, np.maximum(0, np.searchsorted(self._server[0], moments, side="right") - 1)]
        return np.column_stack([waiting, *states])

    def peak_rate(self) -> float:
        """Return the most requests that began or were served in a span, a second."""
        moments = np.arange(self._span, self.outcome.population.duration + 1, self._span)
        counts = [np.diff(np.searchsorted(times, moments), prepend=0) for times in (self._started, self._served)]
        return max((int(count.max(initial=0)) for count in counts), default=0) * NS_PER_S / self._span


def _count(times: Integers, now: int) -> int:
    return int(np.searchsorted(times, now, side="right"))


def list_awaited_spans(outcome: LoopOutcome) -> tuple[Integers, Integers]:
    """Return the times from which on requests await an answer, and those at which they no longer do, each in order.

    Hedged tries of a request whose times overlap are one.
    """
    tries = outcome.tries
    order = np.lexsort((tries.sent, tries.requests))
    owners, begins = tries.requests[order], tries.sent[order]
    ends = np.where(tries.ended < 0, np.iinfo(np.int64).max, tries.ended)[order]
    is_joined = np.zeros(len(order) + 1, np.bool_)
    if any(behavior.hedge for behavior in outcome.population.behaviors):
        for place in (1 + np.flatnonzero(owners[1:] == owners[:-1])).tolist():
            if begins[place] < ends[place - 1]:
                is_joined[place] = True
                ends[place - 1 : place + 1] = np.sort(ends[place - 1 : place + 1])
    return np.sort(begins[~is_joined[:-1]]), np.sort(ends[~is_joined[1:]])


class LoopPlayback:
    """A finished comparison of closed loops with a moving time, which starts at 0; it must have kept its outcomes."""

    def __init__(self, view: LoopView) -> None:
        self.view, self.now, self.axis = view, 0, view.whole
        self.span = max(NS_PER_S, view.whole.end // 50)
        self.runs = [RunPlayback(outcome, self.span) for outcome in view.comparison.outcomes]
        self._peak = max(run.peak_rate() for run in self.runs)

    def advance(self, now: int) -> None:
        """Move to `now`, in nanoseconds after the start."""
        self.now = now

    def next_request(self) -> int | None:
        """Return the time at which the next try arrives in any run, or None after the last one."""
        columns = [run.outcome.traffic.times for run in self.runs]
        later = [int(times[place]) for times in columns if (place := _count(times, self.now)) < len(times)]
        return min(later, default=None)

    def render(self, width: int, ascii_only: bool = False) -> RenderableType:
        """Render the goodput, the latest tries, the server and the retries of each run, in `width` columns."""
        shown = max(1, self.view.whole.end // 3)
        spans = [format_seconds(span / 1e9) for span in (self.span, shown)]
        heading = f"requests served and begun in the last {spans[0]}, and the tries of the last {spans[1]}"
        rows = [
            self._render_run(run, label, color, shown, width, ascii_only)
            for run, (label, color) in zip(self.runs, self.view.names, strict=True)
        ]
        return Group(Text(heading, style="dim"), *rows, render_legend(width, TRY_MEANINGS))

    def _render_run(
        self, run: RunPlayback, label: str, color: str, shown: int, width: int, ascii_only: bool
    ) -> RenderableType:
        now = run.read(self.now)
        bar = format_bar(now.goodput / max(self._peak, 1e-9), ascii_only)
        rates = f" {format_per_second(now.goodput)} served, {format_per_second(now.begun)} begun"
        columns = min(MAX_NAME_COLUMNS, 1 + max(len(label) for label, _ in self.view.names))
        name = Text(label[: columns - 1].ljust(columns), style=f"bold {color}")
        first = Text.assemble(name, "[", Text(bar, style=color), "]", rates)
        first.truncate(width)
        return Group(first, Text("  ").append_text(self._render_recent(run, shown, width - 2)), _format_state(run, now))

    def _render_recent(self, run: RunPlayback, shown: int, cells: int) -> Text:
        """Render the latest tries; cells begin at multiples of their length, so that their marks do not flicker."""
        times, tries, length = run.outcome.traffic.times, run.outcome.tries, max(1, shown // max(1, cells))
        last = self.now // length
        begin, stop = np.searchsorted(times, [(last - cells + 1) * length, self.now + 1])
        results, ended = tries.results[begin:stop], tries.ended[begin:stop]
        unanswered = (ended < 0) | (ended > self.now)
        marks = {"allowed": unanswered | (results == SUCCESS), "delay_ns": unanswered.astype(np.int64)}
        return render_letters(times[begin:stop] // length - (last - cells + 1), marks, cells)


def _format_state(run: RunPlayback, now: LoopSnapshot) -> Text:
    outcome, server = run.outcome, run.outcome.population.server
    parts = [f"{now.tries:>9,} tries"]
    if outcome.policy is not None:
        parts.append(f"{now.denied:>8,} denied")
    parts.append(f"{now.waiting:>6,} to retry")
    if server is not None:
        workers = "" if server.workers is None else f" of {server.workers:,}"
        parts += [f"  busy {now.in_service:,}{workers}", f"  queue {now.queued:,}"]
    return Text("".join(parts))


def format_tries(playback: LoopPlayback) -> Iterator[str]:
    """Yield a header and a line for each try: its time, its client and result, then the state after its arrival."""
    comparison = playback.view.comparison
    has_server = any(case.population.server is not None for case in comparison.cases)
    labels = [result.label for result in comparison.results]
    label_width = max(map(len, [name_rows(comparison), *labels])) if len(labels) > 1 else 0
    names = comparison.results[0].population.first_tries.names
    widths = [min(20, max(6, *map(len, names))), 3, max(len("unanswered"), len("served in 99.9 ms")), 8, 5, 6]
    widths = widths if has_server else widths[:4]
    headers = ["client", "try", "result", "to retry", "busy", "queued"][: len(widths)]
    yield _format_line("time", name_rows(comparison), label_width, headers, widths)
    times = [run.outcome.traffic.times for run in playback.runs]
    owners = np.repeat(np.arange(len(times)), [*map(len, times)])
    order = np.argsort(np.concatenate(times), kind="stable")
    rows = [_list_rows(run, len(widths)) for run in playback.runs]
    for owner in owners[order].tolist():
        at, cells = next(rows[owner])
        yield _format_line(f"{at / 1e9:.3f}s", labels[owner], label_width, cells, widths)


def _list_rows(run: RunPlayback, cells: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the time and the cells of each try."""
    outcome, tries = run.outcome, run.outcome.tries
    times, names = outcome.traffic.times, outcome.traffic.names
    columns = (times, outcome.traffic.clients, tries.numbers, tries.results, tries.ended - tries.sent)
    states = run.read_all(times).tolist()
    for at, client, number, result, took, state in zip(*(each.tolist() for each in columns), states, strict=True):
        row = [names[client][:20], str(number), _format_result(result, took), *map(str, state)]
        yield at, row[:cells]


def _format_result(result: int, took: int) -> str:
    if result == SUCCESS:
        return f"served in {format_seconds(took / 1e9)}" if took else "served"
    return "unanswered" if result == PENDING else TRY_RESULTS[result]


def _format_line(at: str, label: str, label_width: int, cells: Sequence[str], widths: Sequence[int]) -> str:
    run = f"{label:<{label_width}}  " if label_width else ""
    words, counts = cells[:3], cells[3:]
    parts = [*map(str.ljust, words, widths), *map(str.rjust, counts, widths[3:])]
    return f"{at:>9}  {run}{'  '.join(parts)}".rstrip()
