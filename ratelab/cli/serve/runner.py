"""A service run by this process, or by several that this one looks after."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os import get_terminal_size
from socket import socket
from typing import TYPE_CHECKING, NamedTuple

import click

from ratelab.http.counters import CounterValues, SharedCounters
from ratelab.http.server import run
from ratelab.http.workers import WorkerContext, Workers
from ratelab.stores.recording import RecordingLimiter

if TYPE_CHECKING:
    from ratelab.http.app import Service
    from ratelab.http.counters import CounterValues
    from ratelab.stores.recording import RecordingLimiter


class StatusLine:
    """Where a service is reached, then its counts: a line written anew every second if there is a terminal."""

    def __init__(
        self,
        figures: Callable[[], CounterValues],
        live: bool,
        look: Callable[[], str | None],
        recording: RecordingLimiter | None = None,
    ) -> None:
        self._figures = figures
        self._look = look
        self._live = live and sys.stderr is not None and sys.stderr.isatty()  # other output would break the line
        self._recording = recording
        self._shown = ""
        self._failure: str | None = None

    def begin(self, banner: Mapping[str, str]) -> None:
        """Say what is served, by label."""
        for label, text in banner.items():
            click.echo(f"{click.style(f'{label:8}', bold=True)} {text}")

    async def every_second(self) -> None:
        """Do the same as `tick`, for an event loop."""
        self.tick()

    def tick(self) -> None:
        """Show the counts if they have changed, bring a recording up to date, and look after the store."""
        self._update_recording()
        news = self._look()
        if news is not None:
            self.say(news)
        if self._live:
            line = counted(self._figures())[: (get_terminal_size(sys.stderr.fileno()).columns or 80) - 1]
            if line != self._shown:
                click.echo(f"\r\033[K{line}", nl=False, err=True)
                self._shown = line

    def say(self, line: str) -> None:
        """Show a line above the counts."""
        clear, self._shown = "\r\033[K" if self._shown else "", ""
        with suppress(OSError):  # nobody reads it
            click.echo(f"{clear}{line}", err=True)

    def stop(self, in_flight: int) -> None:
        """Say what a stop has to wait for."""
        if in_flight:
            requests = "request" if in_flight == 1 else "requests"
            self.say(f"stopping: {in_flight:,} {requests} in flight; Ctrl-C again drops them")

    def end(self) -> bool:
        """Say what the service did; return whether all went well."""
        self._update_recording()
        self.say(f"stopped: {counted(self._figures())}")
        return self._failure is None

    def _update_recording(self) -> None:
        if self._recording is not None:
            self._recording.flush()
            if self._recording.failure != self._failure:
                self._failure = self._recording.failure
                self.say(click.style(f"recording has stopped: {self._failure}", fg="red"))


def counted(figures: CounterValues) -> str:
    """Write what a service does and has done: `1,204 admitted, 3 waiting, 40 denied, 2 clients in memory`."""
    counts, stats, health = figures
    queued = f" ({counts.delayed:,} after a wait)" if counts.delayed else ""
    waiting = f", {counts.waiting:,} waiting" if counts.waiting else ""
    dropped = f", {counts.dropped:,} dropped from the queue" if counts.dropped else ""
    refused = f", {counts.ambiguous:,} refused" if counts.ambiguous else ""
    if health is None:
        kept = f", {stats.keys:,} {'client' if stats.keys == 1 else 'clients'} in memory"
    elif counts.unavailable:
        kept = f", {counts.unavailable:,} answered 503 for want of the store"
    else:
        kept = f", {health.fallback_decisions:,} of these without the store" if health.fallback_decisions else ""
    return f"{counts.admitted:,} admitted{queued}{waiting}, {counts.denied:,} denied{dropped}{refused}{kept}"


class ServicePlan(NamedTuple):
    """What is to be run."""

    make: Callable[[], Service]
    """Makes the service, in the process that is to run it."""
    listeners: Sequence[socket]
    """The service's socket, and that of its metrics if they are shown."""
    access_log: bool
    banner: dict[str, str]
    warning: str | None = None
    """What is not as it should be from the start."""
    look: Callable[[], str | None] = lambda: None
    """Sees every second to what the service stands on, and returns what there is to say of it."""

    def begin(self, status: StatusLine) -> None:
        """Say what is served."""
        status.begin(self.banner)
        if self.warning:
            status.say(self.warning)

    def prepare(self, service: Service, closing: ExitStack, figures: Callable[[], CounterValues] | None = None) -> None:
        """Add to a service what it shows of itself."""
        if self.access_log and sys.stdout is not None:
            from ratelab.http.access_log import LineWriter

            lines = LineWriter(sys.stdout.fileno())
            closing.callback(lines.close)
            service.log_to(lines)
        if len(self.listeners) > 1:
            service.show_metrics_on(self.listeners[1].getsockname(), figures)


def run_alone(plan: ServicePlan) -> bool:
    """Run a service until it is stopped; return whether all went well."""
    with ExitStack() as closing:
        service = plan.make()
        plan.prepare(service, closing)
        recording = service.limiter if isinstance(service.limiter, RecordingLimiter) else None
        status = StatusLine(service.figures, not plan.access_log, plan.look, recording)
        plan.begin(status)
        with _log_lines_to(status.say):
            run(service.app, plan.listeners, status.every_second, status.stop, "auto")
        return status.end()


def run_together(plan: ServicePlan, count: int) -> bool:
    """Run a service in so many processes until it is stopped; return whether all went well."""
    tally = SharedCounters(count)
    status = StatusLine(tally.total, not plan.access_log, plan.look)
    plan.begin(status)

    def work(link: WorkerContext) -> None:
        tally.begin(link.number)
        with ExitStack() as closing, _log_lines_to(link.say):
            service = plan.make()

            def total() -> CounterValues:
                tally.write(service.figures())
                return tally.total()

            async def write() -> None:
                tally.write(service.figures())

            plan.prepare(service, closing, total)
            run(service.app, plan.listeners, write, link.stop, "auto", link.lifeline)
            total()

    Workers(count, work, plan.listeners, status).run()
    return status.end()


@contextmanager
def _log_lines_to(say: Callable[[str], object]) -> Iterator[None]:
    """Have what ratelab logs said."""

    class Saying(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    handler, log = Saying(), logging.getLogger("ratelab")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
