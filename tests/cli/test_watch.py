"""`ratelab watch`: what has been decided so far, at the pace that keys set, in a terminal or line by line."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from contextlib import nullcontext

import pytest
from chart_inspection import compared
from cli_runner import BURST, invoke, refused, shown
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import Request, runs, traffic_of
from rich.console import Console

from ratelab import ALGORITHMS, Quota
from ratelab.cli.watch import Pace
from ratelab.lab.comparison import compare
from ratelab.lab.levels import gauge
from ratelab.report.charts.view import ComparisonView
from ratelab.report.watch import Playback, frame, status

SECOND = 10**9


@settings(max_examples=30)
@given(run=runs, moments=st.lists(st.integers(0, 12 * SECOND), min_size=1, max_size=5).map(sorted))
def test_at_each_moment_stand_the_decisions_up_to_then_and_the_level_of_a_state_stepped_by_hand(
    run: list[Request], moments: list[int]
) -> None:
    traffic = traffic_of(run)
    comparison = compare(Quota.parse("2/s", burst=5), traffic, list(ALGORITHMS.values()), keep_decisions=True)
    playback, mine = Playback(comparison, traffic.request_keys == 1), (traffic.request_keys == 1).tolist()
    for now in moments:
        playback.advance(now)
        for algorithm in comparison.algorithms:
            made = comparison.decisions[algorithm.name][traffic.times <= now].tolist()
            at_once = sum(allowed and not delay for allowed, *_, delay in made)
            state = algorithm.start(0)
            for at, cost, is_mine in zip(traffic.times.tolist(), traffic.costs.tolist(), mine, strict=True):
                if is_mine and at <= now:
                    algorithm.step(state, at, cost)
            level = gauge(algorithm)(state, now, algorithm.step(state, now, 0)[1])
            expected = (at_once, sum(delay > 0 for *_, delay in made), sum(not allowed for allowed, *_ in made), level)
            assert playback.standing(algorithm) == expected
        later = [at for at in traffic.times.tolist() if at > now]
        assert playback.following() == min(later, default=None)


def seen(now: int, plain: bool = False) -> list[str]:
    """Return the picture of the burst at a moment, on a terminal of 80 columns."""
    view = ComparisonView(compared("burst"), "dark")
    playback = Playback(view.comparison, view.focussed)
    playback.advance(now)
    console = Console(width=80, color_system=None)
    with console.capture() as caught:
        console.print(status(playback, view, 2, paused=False), frame(playback, view, 80, plain), sep="\n")
    return caught.get().splitlines()


def test_a_picture_shows_each_level_the_latest_requests_and_what_they_came_to() -> None:
    picture = seen(3_050_000_000)
    assert " ".join(picture[0].split()) == "3.05 of 10 s at 2x space pause s step + - speed q quit"
    (leaky,) = (number for number, line in enumerate(picture) if line.startswith("leaky-bucket"))
    assert picture[leaky] == "leaky-bucket     [███████████████████████▌] 4.9 of 5 cost in the queue"
    assert picture[leaky + 1].endswith("4 at once       4 later        2 denied")
    assert picture[leaky + 1].split()[0].endswith("|.....|.....+")
    assert max(map(len, picture)) <= 80


def test_a_plain_picture_has_plain_letters_alone() -> None:
    assert all(line.isascii() for line in seen(3_050_000_000, plain=True))
    assert any("[####" in line for line in seen(3_050_000_000, plain=True))


@pytest.mark.parametrize(
    ("speed", "told"), [(1e6, "1000000x"), (1000, "1000x"), (0.5, "0.5x"), (2**-19, "0.00000191x")]
)
def test_a_speed_is_a_plain_number(speed: float, told: str) -> None:
    view = ComparisonView(compared("burst"), "dark")
    assert f" at {told} " in str(status(Playback(view.comparison, view.focussed), view, speed, paused=False))


def test_keys_pause_step_hurry_and_end() -> None:
    pace = Pace(speed=2)
    assert pace.moment(SECOND, 5 * SECOND, passed=0.5) == 2 * SECOND
    pace.press("++-")
    assert pace.moment(0, None, passed=1) == 4 * SECOND
    pace.press(" ")
    assert pace.moment(SECOND, 5 * SECOND, passed=9) == SECOND
    pace.press("s")
    assert pace.moment(SECOND, 5 * SECOND, passed=9) == 5 * SECOND
    assert pace.moment(5 * SECOND, 6 * SECOND, passed=9) == 5 * SECOND
    pace.press("s")
    assert pace.moment(SECOND, None, passed=9) == SECOND
    pace.press(" ")
    assert pace.moment(0, None, passed=1) == 4 * SECOND
    pace.press("\x1b[Czq")
    assert pace.over


def test_without_a_terminal_there_is_a_line_for_each_request_and_the_findings_at_the_end() -> None:
    lines = shown("watch", BURST).splitlines()
    head = lines.index(next(line for line in lines if "client" in line and "token-bucket" in line))
    assert lines[head].split() == ["time", "client", *[result.algorithm for result in compared("burst").results]]
    assert [line.split() for line in lines[head + 5 : head + 8]] == [
        ["3.000s", "alice", "admitted", "in", "0.5s", "admitted", "admitted", "admitted"],
        ["3.010s", "alice", "admitted", "in", "0.99s", "admitted", "admitted", "denied"],
        ["3.020s", "alice", "admitted", "in", "1.48s", "admitted", "denied", "denied"],
    ]
    assert len(lines) - head - 1 - 30 == len(shown("simulate", BURST).rpartition("\n\n")[2].splitlines()) + 1


def test_what_simulate_refuses_is_refused() -> None:
    assert "unknown algorithm 'tokn': " in refused("watch", BURST, "--algo", "tokn")


@pytest.mark.parametrize("keys", [b"q", b""], ids=["ended", "to its end"])
def test_in_a_terminal_it_plays_until_it_ends_or_is_ended(keys: bytes) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(ours)
    command = [sys.executable, "-m", "ratelab", "watch", BURST, "--speed", "0.2" if keys else "1000000"]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "90", "LINES": "40"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        text = read(ours, b"q quit")
        os.write(ours, keys)
        text += read(ours, None)
    assert termios.tcgetattr(ours) == before
    os.close(ours)
    assert process.returncode == 0
    assert ("10.00 of 10 s" in text.decode()) == (not keys)
    assert "token-bucket and fixed-window let 7 through" in text.decode()


def test_an_interrupt_ends_it_without_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    def press(_: float) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("ratelab.cli.watch.keyboard", lambda: nullcontext(press))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr("rich.console.Console.is_dumb_terminal", False)
    result = invoke("watch", BURST)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert "let 7 through" not in result.stdout


def test_a_terminal_that_is_too_narrow_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr("rich.console.Console.is_dumb_terminal", False)
    monkeypatch.setattr("ratelab.cli.watch.get_terminal_size", lambda: os.terminal_size((79, 24)))
    assert "the terminal must have at least 80 columns, got 79: widen it" in refused("watch", BURST)


def read(terminal: int, until: bytes | None) -> bytes:
    """Read what a program writes, up to some words or to its end."""
    text = b""
    while until is None or until not in text:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other side is closed
            part = b""
        if not part:
            break
        text += part
    return text
