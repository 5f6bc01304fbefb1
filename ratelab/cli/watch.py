"""`ratelab watch`: playback of a scenario in the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, NamedTuple

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live

from ratelab.algorithms import build_policy, select
from ratelab.cli.loop_runs import is_loop, run_variants
from ratelab.cli.options import ALGORITHMS_OPTION, scenario_options
from ratelab.cli.output import create_console, is_terminal, print_sentences, print_text
from ratelab.errors import InputError
from ratelab.lab.comparison import compare
from ratelab.lab.scenarios import Scenario, load_variants
from ratelab.limiter import ROW_FIELDS
from ratelab.report.charts.time_axis import TimeAxis
from ratelab.report.charts.view import ComparisonView
from ratelab.report.summary import describe_run, summarize
from ratelab.report.watch import Playback, format_requests, render_frame, render_status

if TYPE_CHECKING:
    from ratelab.report.loop_watch import LoopPlayback

FRAME_INTERVAL_S = 0.05
MIN_TERMINAL_COLUMNS = 80
DEFAULT_MAX_PLAYBACK_S = 20
"""Without `--speed`, longer scenarios are played faster, so that they take this long."""


@click.command()
@click.argument("scenario", metavar="SCENARIO")
@ALGORITHMS_OPTION
@scenario_options
@click.option(
    "--speed",
    type=click.FloatRange(1e-6, 1e6),
    help=f"Speed factor; by default 1, or more for scenarios over {DEFAULT_MAX_PLAYBACK_S} s.",
)
def watch(
    scenario: str,
    algorithms: tuple[str, ...],
    rate: str | None,
    burst: int | None,
    seed: int | None,
    speed: float | None,
) -> None:
    """Play SCENARIO, a YAML file, in the terminal: levels, arriving requests and counts of decisions.

    Of clients that try again, it shows the goodput, the tries, the server and its queue, and how many requests wait to
    be tried again.

    Keys: space pauses and resumes, s steps to the next request, + and - change the speed, q quits. If the output is
    not a terminal, each request, or each try, is one line.
    """
    console = create_console()
    interactive = is_terminal(sys.stdout) and not console.is_dumb_terminal
    if interactive:
        _check_terminal_width()
    variants = load_variants(scenario, rate, burst, seed)
    loaded = variants[0]
    if loaded.limits is not None:
        raise InputError(f"{scenario} has several policies, which watch does not show: use ratelab simulate")
    show = _run_loops(variants, algorithms) if is_loop(variants) else _replay(loaded, algorithms)
    console.print(f"{loaded.name}: {loaded.description}", style="bold", markup=False)
    for line in show.description:
        print_text(console, line)
    console.print()
    if interactive:
        _play(console, show, Pace(speed or max(1.0, show.axis.end / 1e9 / DEFAULT_MAX_PLAYBACK_S)))
    else:
        for line in show.lines:
            click.echo(line)
    print_sentences(console, show.findings)


class Show(NamedTuple):
    """A playback: in a terminal its frames, otherwise its lines."""

    description: Sequence[str]
    playback: Playback | LoopPlayback
    axis: TimeAxis
    render: Callable[[int, bool], RenderableType]
    """Renders a frame of a width, with ASCII characters only or not."""
    lines: Iterator[str]
    findings: Sequence[str]


def _replay(loaded: Scenario, algorithms: Sequence[str]) -> Show:
    kinds, quota = select(algorithms, loaded.algorithms), loaded.open_loop_quota
    policies = [build_policy(kind, quota) for kind in kinds]
    comparison = compare(policies, loaded.traffic, fields=ROW_FIELDS)
    view = ComparisonView(comparison, "dark")
    playback = Playback(comparison, view.focused)
    return Show(
        describe_run(loaded.traffic, quota).splitlines(),
        playback,
        view.whole,
        lambda width, ascii_only: render_frame(playback, view, width, ascii_only),
        format_requests(view),
        summarize(comparison),
    )


def _run_loops(variants: Sequence[Scenario], algorithms: Sequence[str]) -> Show:
    from ratelab.report.charts.loop_view import LoopView
    from ratelab.report.loop_watch import LoopPlayback, format_tries

    run = run_variants(variants, algorithms, keep=True)
    playback = LoopPlayback(LoopView(run.comparison, "dark"))
    return Show(run.describe(), playback, playback.view.whole, playback.render, format_tries(playback), run.summarize())


def _check_terminal_width() -> None:
    columns = get_terminal_size().columns
    if columns < MIN_TERMINAL_COLUMNS:
        raise InputError(
            f"the terminal must have at least {MIN_TERMINAL_COLUMNS} columns, got {columns}: "
            "widen it, or append `| cat` to print one line per request"
        )


@dataclass
class Pace:
    """The pace of a playback, controlled by keys."""

    speed: float
    paused: bool = False
    step: bool = False
    """Whether to go to the next request, once."""
    ended: bool = False

    def press(self, keys: str) -> None:
        """Apply each key: pause or resume, step, faster, slower, quit."""
        for key in keys:
            if key == " ":
                self.paused = not self.paused
            elif key == "s":
                self.paused = self.step = True
            elif key in "+-":
                self.speed = min(1e6, max(1e-6, self.speed * (2 if key == "+" else 0.5)))
            elif key == "q":
                self.ended = True

    def next_time(self, now: int, next_request: int | None, elapsed_s: float) -> int:
        """Return the playback's time in nanoseconds, `elapsed_s` real seconds after it was `now`."""
        if self.step:
            self.step = False
            return now if next_request is None else next_request
        return now if self.paused else now + int(elapsed_s * self.speed * 1e9)


def _play(console: Console, show: Show, pace: Pace) -> None:
    """Play the scenario to its end, or until the user quits."""
    playback, end = show.playback, show.axis.end

    def render() -> RenderableType:
        status = render_status(playback.now, show.axis, pace.speed, pace.paused)
        return Group(status, show.render(console.width, console.options.ascii_only))

    with open_keyboard() as read_keys, Live(console=console, auto_refresh=False) as live:
        before = time.monotonic()
        while not pace.ended and (playback.now < end or pace.paused):
            live.update(render(), refresh=True)
            pace.press(read_keys(FRAME_INTERVAL_S))
            now = time.monotonic()
            playback.advance(min(end, pace.next_time(playback.now, playback.next_request(), now - before)))
            before = now
        live.update(render(), refresh=True)


ReadKeys = Callable[[float], str]
"""Waits for at most this many seconds, and returns the characters of the keys pressed, if any."""


@contextmanager
def open_keyboard() -> Iterator[ReadKeys]:
    """Put the terminal in cbreak mode and yield a key reader; if standard input is not a terminal, it only sleeps."""
    if sys.platform == "win32" or sys.stdin is None or not sys.stdin.isatty():
        yield _sleep
        return
    import termios  # not on Windows
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)  # keeps keys that have been pressed already
    try:
        yield lambda timeout_s: _read_keys(descriptor, timeout_s)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _sleep(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""


def _read_keys(descriptor: int, timeout_s: float) -> str:
    from select import select  # of terminals, not on Windows

    ready, _, _ = select([descriptor], [], [], timeout_s)
    return os.read(descriptor, 64).decode("ascii", "ignore") if ready else ""
