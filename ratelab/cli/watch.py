"""`ratelab watch`: a scenario plays in the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import click

from ratelab.cli.options import selected_algorithms
from ratelab.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ratelab.report.charts.view import ComparisonView

Wait = Callable[[float], str]
"""Waits so many seconds at most, and returns the letters of the keys pressed, maybe none."""


@contextmanager
def keyboard() -> Iterator[Wait]:
    """Take keys one by one, unseen, until the end of the block; without a keyboard, there is never one."""
    if sys.platform == "win32" or sys.stdin is None or not sys.stdin.isatty():
        yield _only_wait
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)  # what was typed before counts
    try:
        yield lambda patience: _read(descriptor, patience)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _only_wait(patience: float) -> str:
    time.sleep(patience)
    return ""


def _read(descriptor: int, patience: float) -> str:
    from select import select

    ready, _, _ = select([descriptor], [], [], patience)
    return os.read(descriptor, 64).decode("ascii", "ignore") if ready else ""


EVERY = 0.05
"""Seconds between two pictures."""

NARROWEST = 80
"""Columns of a terminal that the pictures take."""

AT_MOST = 20
"""Seconds that a scenario takes to play, unless a speed is given: a longer one is hurried."""


@dataclass
class Pace:
    """How fast the playback's time goes by, as its keys have it."""

    speed: float
    paused: bool = False
    step: bool = False
    """Whether to go on to the next request, once."""
    over: bool = False

    def press(self, keys: str) -> None:
        """Do what each key says: pause or go on, one step, faster, slower, end."""
        for key in keys:
            if key == " ":
                self.paused = not self.paused
            elif key == "s":
                self.paused = self.step = True
            elif key in "+-":
                self.speed = min(1e6, max(1e-6, self.speed * (2 if key == "+" else 0.5)))
            elif key == "q":
                self.over = True

    def moment(self, now: int, following: int | None, passed: float) -> int:
        """Return the time of the playback, in nanoseconds, `passed` real seconds after it was `now`."""
        if self.step:
            self.step = False
            return now if following is None else following
        return now if self.paused else now + int(passed * self.speed * 1e9)


@click.command()
@click.argument("scenario", metavar="SCENARIO")
@click.option("--algo", "-a", "algorithms", multiple=True, metavar="NAME|FILE.py:CLASS", help="As for simulate.")
@click.option("--rate", metavar="RATE", help="Instead of the scenario's rate, such as 100/min.")
@click.option("--burst", type=click.IntRange(min=1), help="Instead of the scenario's burst.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the scenario's seed.")
@click.option(
    "--speed",
    type=click.FloatRange(1e-6, 1e6),
    help=f"Seconds of the scenario to a second; by default 1, or so many that it takes {AT_MOST} s.",
)
def watch(
    scenario: str,
    algorithms: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    seed: int | None,
    speed: float | None,
) -> None:
    """Play SCENARIO, a YAML file: buckets fill and drain, requests arrive, counters run.

    Keys: space pauses and goes on, s goes on to the next request, + and - change the speed, q ends it. Where the
    output is no terminal, a line is written for each request.
    """
    from ratelab.cli.output import console_of_80
    from ratelab.lab.comparison import compare
    from ratelab.lab.scenarios import load_scenario
    from ratelab.report.charts.view import ComparisonView
    from ratelab.report.summary import findings
    from ratelab.report.tables import heading
    from ratelab.report.watch import lines

    console = console_of_80()
    playing = console.is_terminal and not console.is_dumb_terminal
    if playing:
        _check_wide()
    loaded = load_scenario(scenario, rate, burst, seed)
    comparison = compare(
        loaded.quota, loaded.traffic, selected_algorithms(algorithms, loaded.algorithms), keep_decisions=True
    )
    view = ComparisonView(comparison, "dark")
    console.print(f"{loaded.name}: {loaded.description}", style="bold", markup=False)
    console.print(heading(comparison), markup=False)
    console.print()
    if playing:
        _play(console, view, Pace(speed or max(1.0, view.end / 1e9 / AT_MOST)))
    else:
        for line in lines(view):
            click.echo(line)
    console.print()
    for sentence in findings(comparison):
        console.print(sentence, markup=False)


def _check_wide() -> None:
    columns = get_terminal_size().columns
    if columns < NARROWEST:
        raise InputError(
            f"the terminal must have at least {NARROWEST} columns, got {columns}: "
            "widen it, or add `| cat` for a line for each request"
        )


def _play(console: Console, view: ComparisonView, pace: Pace) -> None:
    """Show the scenario from its beginning to its end, or until somebody has seen enough."""
    from rich.console import Group
    from rich.live import Live

    from ratelab.report.watch import Playback, frame, status

    playback = Playback(view.comparison, view.focussed)

    def picture() -> RenderableType:
        told = status(playback, view, pace.speed, pace.paused)
        return Group(told, frame(playback, view, console.width, console.options.ascii_only))

    with keyboard() as wait, Live(console=console, auto_refresh=False) as live:
        before = time.monotonic()
        while not pace.over and (playback.now < view.end or pace.paused):
            live.update(picture(), refresh=True)
            pace.press(wait(EVERY))
            now = time.monotonic()
            playback.advance(min(view.end, pace.moment(playback.now, playback.following(), now - before)))
            before = now
        live.update(picture(), refresh=True)
