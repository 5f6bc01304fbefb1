"""The processes of `ratelab serve`, and their output: banner, status line, reports."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import get_terminal_size
from socket import socket
from typing import NamedTuple

import click

from ratelab.cli.serve.messages import format_counters
from ratelab.http.admin import listen_admin
from ratelab.http.app import Service
from ratelab.http.counters import CounterValues, SharedCounters
from ratelab.http.line_writer import LineWriter, use_line_writers
from ratelab.http.offenders import Ranking, SharedOffenders
from ratelab.http.server import listen, run
from ratelab.http.workers import WorkerContext, WorkerPool
from ratelab.stores.recording import RecordingLimiter


class ServicePlan(NamedTuple):
    """All that a process needs to run the service."""

    create_service: Callable[[], Service]
    """Creates the service, in the process that runs it."""
    listeners: Sequence[socket]
    """The socket of the service, that of the metrics, and the Unix socket of the admin pages; the latter two if any."""
    access_log: bool
    banner: Mapping[str, str]
    """Lines to print at the start, by label."""
    warning: str | None = None
    """A problem to report at the start."""
    check_backend: Callable[[], str | None] = lambda: None
    """Called every second; repairs the backend and returns a message if it was broken."""
    has_policy_file: bool = False
    """Whether the policies are those of a file, which is read again after a change and at SIGHUP."""

    def start(self, status: StatusLine) -> None:
        """Print the banner and the warning."""
        status.print_banner(self.banner)
        if self.warning:
            status.report(self.warning)

    def add_outputs(
        self,
        service: Service,
        read_counters: Callable[[], CounterValues] | None = None,
        read_ranking: Callable[[], Ranking] | None = None,
    ) -> None:
        """Add the access log, the metrics and the admin pages to a service."""
        if self.access_log and sys.stdout is not None:
            service.enable_access_log(lambda line: sys.stdout.write(f"{line}\n"))
        for listener in self.listeners[1:]:
            address = listener.getsockname()
            if isinstance(address, str):
                service.serve_admin(address, read_ranking)
            else:
                service.serve_metrics(address, read_counters, read_ranking)


def open_listeners(
    host: str, port: int, metrics_host: str, metrics_port: int | None, admin_socket: str | None, closing: ExitStack
) -> list[socket]:
    """Open the socket of a service, that of its metrics if they have a port, and that of its admin pages if any.

    `closing` closes them. Raises `InputError` for an address or a path that cannot be used.
    """
    listeners = [closing.enter_context(listen(host, port))]
    if metrics_port is not None:
        listeners.append(closing.enter_context(listen(metrics_host, metrics_port)))
    if admin_socket is not None:
        listeners.append(closing.enter_context(listen_admin(admin_socket)))
    return listeners


def run_single(plan: ServicePlan) -> bool:
    """Run the service in this process until it is stopped; return False if the recording failed."""
    with use_line_writers("stdout", "stderr"):
        service = plan.create_service()
        plan.add_outputs(service)
        recording = service.limiter if isinstance(service.limiter, RecordingLimiter) else None
        status = StatusLine(service.read_counters, not plan.access_log, plan.check_backend, recording)
        plan.start(status)

        async def update() -> None:
            status.update()
            _report_reload(service, status.report)

        on_hangup = service.force_reload if plan.has_policy_file else None
        with _log_to(status.report):
            run(service.app, plan.listeners, update, status.report_stop, "auto", on_hangup=on_hangup)
        return status.finish()


def run_workers(plan: ServicePlan, count: int) -> None:
    """Run the service in `count` processes until it is stopped."""
    counters, offenders = SharedCounters(count), SharedOffenders(count)

    def work(worker: WorkerContext) -> None:
        counters.attach(worker.number)
        offenders.attach(worker.number)
        with use_line_writers("stdout"), _log_to(worker.report):
            service = plan.create_service()

            def publish_all() -> None:
                counters.publish(service.read_counters())
                offenders.publish(service.read_ranking())

            def read_total() -> CounterValues:
                publish_all()
                return counters.total()

            def read_ranking() -> Ranking:
                publish_all()
                return offenders.total()

            async def publish() -> None:
                publish_all()
                _report_reload(service, worker.report)

            plan.add_outputs(service, read_total, read_ranking)
            on_hangup = service.force_reload if plan.has_policy_file else None
            run(service.app, plan.listeners, publish, worker.report_stop, "auto", worker.supervisor_pipe, on_hangup)
            publish_all()

    with use_line_writers("stdout", "stderr"):
        status = StatusLine(counters.total, not plan.access_log, plan.check_backend)
        plan.start(status)
        WorkerPool(count, work, plan.listeners, status, plan.has_policy_file).run()
        status.finish()


def _report_reload(service: Service, report: Callable[[str], object]) -> None:
    message = service.reload()
    if message is not None:
        report(message)


class StatusLine:
    """The banner, then a line of counters that is rewritten every second if standard error is a terminal.

    `update` also flushes the recording and checks the backend.
    """

    def __init__(
        self,
        read_counters: Callable[[], CounterValues],
        live: bool,
        check_backend: Callable[[], str | None],
        recording: RecordingLimiter | None = None,
    ) -> None:
        self._read_counters = read_counters
        self._check_backend = check_backend
        self._live = live and sys.stderr is not None and sys.stderr.isatty()
        self._recording = recording
        self._line = ""
        self._failure: str | None = None

    def print_banner(self, banner: Mapping[str, str]) -> None:
        """Print each label and its text."""
        for label, text in banner.items():
            click.echo(f"{click.style(f'{label:8}', bold=True)} {text}")

    def update(self) -> None:
        """Do the work of each second."""
        self._flush_recording()
        repair = self._check_backend()
        if repair is not None:
            self.report(repair)
        if self._live and not (isinstance(sys.stderr, LineWriter) and sys.stderr.is_behind):
            columns = get_terminal_size(sys.stderr.fileno()).columns or 80
            line = format_counters(self._read_counters())[: columns - 1]
            if line != self._line:
                click.echo(f"\r\033[K{line}", nl=False, err=True)
                self._line = line

    def report(self, line: str) -> None:
        """Print a line above the counters."""
        clear, self._line = "\r\033[K" if self._line else "", ""
        click.echo(f"{clear}{line}", err=True)

    def report_stop(self, in_flight: int) -> None:
        """Print the number of requests in flight at shutdown, if there are any."""
        if in_flight:
            requests, them = ("request", "it") if in_flight == 1 else ("requests", "them")
            self.report(f"stopping: {in_flight:,} {requests} in flight; press Ctrl-C again to drop {them}")

    def finish(self) -> bool:
        """Print the final counters; return False if the recording failed."""
        self._flush_recording()
        self.report(f"stopped: {format_counters(self._read_counters())}")
        return self._failure is None

    def _flush_recording(self) -> None:
        if self._recording is not None:
            self._recording.flush()
            if self._recording.failure != self._failure:
                self._failure = self._recording.failure
                self.report(click.style(f"recording stopped: {self._failure}", fg="red"))


@contextmanager
def _log_to(report: Callable[[str], object]) -> Iterator[None]:
    """Pass the messages of all loggers to `report`, from warnings on."""

    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(self.format(record))

    handler, logger = Reporter(), logging.getLogger()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
