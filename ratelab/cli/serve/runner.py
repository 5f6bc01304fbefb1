"""A service run by this process, or by several that this one looks after."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from socket import socket
from typing import TYPE_CHECKING, NamedTuple

from ratelab.cli.status import StatusLine
from ratelab.http.counters import Figures, Tally
from ratelab.http.server import run
from ratelab.http.workers import Link, Workers
from ratelab.stores.recording import RecordingLimiter

if TYPE_CHECKING:
    from ratelab.http.service import Service


class Plan(NamedTuple):
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

    def prepare(self, service: Service, closing: ExitStack, figures: Callable[[], Figures] | None = None) -> None:
        """Add to a service what it shows of itself."""
        if self.access_log and sys.stdout is not None:
            from ratelab.cli.lines import LineWriter

            lines = LineWriter(sys.stdout.fileno())
            closing.callback(lines.close)
            service.log_to(lines)
        if len(self.listeners) > 1:
            service.show_metrics_on(self.listeners[1].getsockname(), figures)


def run_alone(plan: Plan) -> bool:
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


def run_together(plan: Plan, count: int) -> bool:
    """Run a service in so many processes until it is stopped; return whether all went well."""
    tally = Tally(count)
    status = StatusLine(tally.total, not plan.access_log, plan.look)
    plan.begin(status)

    def work(link: Link) -> None:
        tally.begin(link.number)
        with ExitStack() as closing, _log_lines_to(link.say):
            service = plan.make()

            def total() -> Figures:
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
