"""`ratelab watch`: playback in a terminal, controlled by keys, and lines for any other output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from contextlib import nullcontext

import pytest
from chart_inspection import compare_scenario
from cli_runner import BURST, get_error, get_output, invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import Request, create_traffic, runs
from rich.console import Console

from ratelab import ALGORITHMS, create
from ratelab.cli.watch import Pace
from ratelab.lab.comparison import compare
from ratelab.lab.levels import create_level_reader
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import NS_PER_S
from ratelab.report.charts.view import ComparisonView
from ratelab.report.watch import Playback, render_frame, render_status

# --- frames


@settings(max_examples=30)
@given(run=runs, moments=st.lists(st.integers(0, 12 * NS_PER_S), min_size=1, max_size=5).map(sorted))
def test_a_snapshot_has_the_decisions_so_far_and_the_current_level(run: list[Request], moments: list[int]) -> None:
    traffic = create_traffic(run)
    policies = [create(name, "2/s", burst=5) for name in ALGORITHMS]
    comparison = compare(policies, traffic, fields=ROW_FIELDS)
    playback, observed = Playback(comparison, traffic.request_keys == 1), (traffic.request_keys == 1).tolist()
    for now in moments:
        playback.advance(now)
        for outcome in comparison.outcomes:
            policy, decisions = outcome.policy, outcome.rows[traffic.times <= now].tolist()
            immediate = sum(allowed and not delay for allowed, *_, delay in decisions)
            delayed = sum(delay > 0 for *_, delay in decisions)
            denied = sum(not allowed for allowed, *_ in decisions)
            state = policy.start(0)
            for at, cost, is_observed in zip(traffic.times.tolist(), traffic.costs.tolist(), observed, strict=True):
                if is_observed and at <= now:
                    policy.step(state, at, cost)
            level = create_level_reader(policy.algorithm)(state, now, policy.step(state, now, 0)[1])
            assert playback.snapshot(policy) == (immediate, delayed, denied, level)
        later = [at for at in traffic.times.tolist() if at > now]
        assert playback.next_request() == min(later, default=None)


def render_burst(now: int, ascii_only: bool = False) -> list[str]:
    """Render the burst scenario at a time, on a terminal of 80 columns."""
    view = ComparisonView(compare_scenario("burst"), "dark")
    playback = Playback(view.comparison, view.focused)
    playback.advance(now)
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(
            render_status(playback.now, view.whole, 2, paused=False),
            render_frame(playback, view, 80, ascii_only),
            sep="\n",
        )
    return capture.get().splitlines()


def test_a_frame_shows_levels_latest_requests_and_counts() -> None:
    lines = render_burst(3_050_000_000)
    assert " ".join(lines[0].split()) == "3.05 of 10 s at 2x space pause s step + - speed q quit"
    (leaky,) = (number for number, line in enumerate(lines) if line.startswith("leaky-bucket"))
    assert lines[leaky] == "leaky-bucket     [███████████████████████▌] 4.9 of 5 cost in the queue"
    assert lines[leaky + 1].endswith("4 immediate       4 delayed        2 denied")
    assert lines[leaky + 1].split()[0].endswith("|....|....+")
    assert max(map(len, lines)) <= 80


def test_an_ascii_frame_has_only_ascii_characters() -> None:
    assert all(line.isascii() for line in render_burst(3_050_000_000, ascii_only=True))
    assert any("[####" in line for line in render_burst(3_050_000_000, ascii_only=True))


@pytest.mark.parametrize(
    ("speed", "text"), [(1e6, "1000000x"), (1000, "1000x"), (0.5, "0.5x"), (2**-19, "0.00000191x")]
)
def test_speed_is_shown_without_an_exponent(speed: float, text: str) -> None:
    view = ComparisonView(compare_scenario("burst"), "dark")
    assert f" at {text} " in str(render_status(0, view.whole, speed, paused=False))


# --- keys


def test_keys_pause_step_change_the_speed_and_quit() -> None:
    pace = Pace(speed=2)
    assert pace.next_time(NS_PER_S, 5 * NS_PER_S, elapsed_s=0.5) == 2 * NS_PER_S
    pace.press("++-")
    assert pace.next_time(0, None, elapsed_s=1) == 4 * NS_PER_S
    pace.press(" ")
    assert pace.next_time(NS_PER_S, 5 * NS_PER_S, elapsed_s=9) == NS_PER_S
    pace.press("s")
    assert pace.next_time(NS_PER_S, 5 * NS_PER_S, elapsed_s=9) == 5 * NS_PER_S
    assert pace.next_time(5 * NS_PER_S, 6 * NS_PER_S, elapsed_s=9) == 5 * NS_PER_S
    pace.press("s")
    assert pace.next_time(NS_PER_S, None, elapsed_s=9) == NS_PER_S
    pace.press(" ")
    assert pace.next_time(0, None, elapsed_s=1) == 4 * NS_PER_S
    pace.press("\x1b[Czq")
    assert pace.ended


# --- the command


def test_without_a_terminal_each_request_is_a_line_followed_by_findings() -> None:
    lines = get_output("watch", BURST).splitlines()
    header = lines.index(next(line for line in lines if "client" in line and "token-bucket" in line))
    algorithms = [outcome.policy.name for outcome in compare_scenario("burst").outcomes]
    assert lines[header].split() == ["time", "client", *algorithms]
    assert [line.split() for line in lines[header + 5 : header + 8]] == [
        ["3.000s", "alice", "admitted", "in", "500", "ms", "admitted", "admitted", "admitted"],
        ["3.010s", "alice", "admitted", "in", "990", "ms", "admitted", "admitted", "denied"],
        ["3.020s", "alice", "admitted", "in", "1.48", "s", "admitted", "denied", "denied"],
    ]
    assert len(lines) - header - 1 - 30 == len(get_output("simulate", BURST).rpartition("\n\n")[2].splitlines()) + 1


def test_an_unknown_algorithm_is_rejected_as_by_simulate() -> None:
    assert "unknown algorithm 'tokn': " in get_error("watch", BURST, "--algo", "tokn")


@pytest.mark.slow
@pytest.mark.parametrize("keys", [b"q", b""], ids=["quit", "to the end"])
def test_a_terminal_plays_until_the_end_or_q(keys: bytes) -> None:
    terminal, child = pty.openpty()
    before = termios.tcgetattr(terminal)
    command = [sys.executable, "-m", "ratelab", "watch", BURST, "--speed", "0.2" if keys else "1000000"]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "90", "LINES": "40"}
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=env) as process:
        os.close(child)
        text = read_terminal(terminal, b"q quit")
        os.write(terminal, keys)
        text += read_terminal(terminal, None)
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)
    assert process.returncode == 0
    assert ("10.00 of 10 s" in text.decode()) == (not keys)
    assert "token-bucket and fixed-window let 7 through" in text.decode()


def test_an_interrupt_ends_the_playback_without_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("ratelab.cli.watch.open_keyboard", lambda: nullcontext(interrupt))
    monkeypatch.setattr("ratelab.cli.watch.is_terminal", lambda _: True)
    monkeypatch.setattr("rich.console.Console.is_dumb_terminal", False)
    result = invoke("watch", BURST)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert "let 7 through" not in result.stdout


def test_a_narrow_terminal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.cli.watch.is_terminal", lambda _: True)
    monkeypatch.setattr("rich.console.Console.is_dumb_terminal", False)
    monkeypatch.setattr("ratelab.cli.watch.get_terminal_size", lambda: os.terminal_size((79, 24)))
    assert "the terminal must have at least 80 columns, got 79: widen it" in get_error("watch", BURST)


def read_terminal(terminal: int, until: bytes | None) -> bytes:
    """Read the output of a program up to some bytes, or to its end."""
    text = b""
    while until is None or until not in text:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux raises it when the child has closed its side
            part = b""
        if not part:
            break
        text += part
    return text
