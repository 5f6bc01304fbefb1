"""What a person who watches the terminal is told while a service runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from os import get_terminal_size
from socket import socket
from typing import TYPE_CHECKING

import click

from ratelab.stores.recording import RecordingLimiter

if TYPE_CHECKING:
    from ratelab.http.service import Service
    from ratelab.quota import Quota

_PERIODS = {"s": "second", "min": "minute", "h": "hour", "day": "day"}


def in_words(quota: Quota) -> str:
    """Write a quota as a sentence's end: `2 requests a second, and 5 at once`."""
    count, _, period = quota.rate.partition("/")
    requests = "request" if count == "1" else "requests"
    every = f"{'an' if period == 'h' else 'a'} {_PERIODS[period]}" if period in _PERIODS else f"every {period}"
    return f"{count} {requests} {every}, and {quota.burst} at once"


class Watch:
    """Where a service is reached, then its counts: a line written anew every second if there is a terminal."""

    def __init__(self, service: Service, live: bool) -> None:
        self._service = service
        self._live = live and sys.stderr is not None and sys.stderr.isatty()  # other output would break the line
        self._shown = ""
        self._failure: str | None = None

    def begin(self, quota: Quota, key: str, listeners: Sequence[socket]) -> None:
        """Say what is served, to whom and where, and what to try."""
        from ratelab.http.server import url_of

        url = f"{url_of(listeners[0])}/ping"
        name = key.removeprefix("header:")
        each = "address" if name == key else f"{name} header"
        lines = {
            "ratelab": f"{self._service.limiter.algorithm.name}, {quota}",
            "serving": url,
            "quota": f"{in_words(quota)}, for each {each}",
            "try": f"curl -i {url}" if name == key else f"curl -i -H '{name}: alice' {url}",
            "stop": "Ctrl-C",
        }
        if len(listeners) > 1:
            lines["metrics"] = f"{url_of(listeners[1])}/metrics"
        for label, text in lines.items():
            click.echo(f"{click.style(f'{label:8}', bold=True)} {text}")

    async def every_second(self) -> None:
        """Show the counts if they have changed, and bring a recording up to date."""
        self._update_recording()
        if self._live:
            line = self._line()[: (get_terminal_size(sys.stderr.fileno()).columns or 80) - 1]
            if line != self._shown:
                click.echo(f"\r\033[K{line}", nl=False, err=True)
                self._shown = line

    def stop(self, in_flight: int) -> None:
        """Say what a stop has to wait for."""
        if in_flight:
            requests = "request" if in_flight == 1 else "requests"
            self._say(f"stopping: {in_flight:,} {requests} in flight; Ctrl-C again drops them")

    def end(self) -> bool:
        """Say what the service did; return whether all went well."""
        self._update_recording()
        self._say(f"stopped: {self._line()}")
        return self._failure is None

    def _say(self, line: str) -> None:
        clear, self._shown = "\r\033[K" if self._shown else "", ""
        with suppress(OSError):  # nobody reads it
            click.echo(f"{clear}{line}", err=True)

    def _update_recording(self) -> None:
        limiter = self._service.limiter
        if isinstance(limiter, RecordingLimiter):
            limiter.flush()
            if limiter.failure != self._failure:
                self._failure = limiter.failure
                self._say(click.style(f"recording has stopped: {self._failure}", fg="red"))

    def _line(self) -> str:
        counts, keys = self._service.counts, self._service.limiter.stats.keys
        queued = f" ({counts.delayed:,} after a wait)" if counts.delayed else ""
        refused = f", {counts.ambiguous:,} refused" if counts.ambiguous else ""
        clients = "client" if keys == 1 else "clients"
        return f"{counts.admitted:,} admitted{queued}, {counts.denied:,} denied{refused}, {keys:,} {clients} in memory"
