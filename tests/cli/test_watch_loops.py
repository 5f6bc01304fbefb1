"""`ratelab watch` of clients that try again: frames and lines with tries, retries, the server and the goodput."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cli_runner import get_output
from random_populations import draw_population
from rich.console import Console

from ratelab.cli.loop_runs import run_variants
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.outcome import LoopOutcome, observe_server, run_loop
from ratelab.lab.scenarios import load_variants
from ratelab.quota import NS_PER_S
from ratelab.report.charts.loop_view import LoopView
from ratelab.report.loop_watch import LoopPlayback, RunPlayback

SEEDS = range(20, 35)

OUTAGE = """\
name: outage
description: A service with two workers that is down for two seconds.
duration: 20s
quota: {rate: 20/s, burst: 20}
algorithms: [token-bucket]
server: {workers: 2, service: 150ms}
faults: [{fault: outage, at: 8s, for: 2s}]
clients:
  - name: web
    traffic: [{pattern: steady, rate: 10/s}]
    timeout: 1s
    retry: {policy: fixed, base: 1s}
variants:
  patient: {}
  hasty: {clients: {web: {retry: {policy: immediate}}}}
"""
HELD = """\
name: held
duration: 3s
quota: {rate: 1/s}
algorithms: [fixed-window]
clients:
  - name: web
    traffic: [{pattern: burst, at: 200ms, size: 2}]
    retry: {policy: retry-after}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(text)
    return path


def count_waiting(outcome: LoopOutcome, now: int) -> int:
    """Count the requests that have begun and not ended, of which no try awaits an answer."""
    requests, tries = outcome.requests, outcome.tries
    is_open = (requests.started <= now) & ((requests.ended < 0) | (requests.ended > now))
    awaits = (tries.sent <= now) & ((tries.ended < 0) | (tries.ended > now))
    return int(np.count_nonzero(is_open)) - len(np.unique(tries.requests[awaits]))


@pytest.mark.parametrize("seed", SEEDS)
def test_requests_that_wait_are_those_without_a_try_under_way(seed: int) -> None:
    policy, population = draw_population(seed)
    outcome = run_loop(policy, population)
    run = RunPlayback(outcome, NS_PER_S)
    for moment in range(0, population.duration, population.duration // 7):
        assert run.read(moment).waiting == count_waiting(outcome, moment)


@pytest.mark.parametrize("seed", SEEDS)
def test_tries_wait_for_the_server_only_while_all_workers_are_busy(seed: int) -> None:
    outcome = run_loop(*draw_population(seed))
    server = outcome.population.server
    times, in_service, queued = observe_server(outcome)
    assert (np.diff(times) >= 0).all()
    if server is None or server.workers is None:
        assert not queued.any()
    else:
        assert (in_service <= server.workers).all()
        assert (in_service[queued > 0] == server.workers).all()
        assert server.queue is None or (queued <= server.queue).all()


def test_the_server_and_its_queue_have_the_tries_between_arrival_and_service(tmp_path: Path) -> None:
    population = load_variants(str(write(tmp_path, OUTAGE)))[0].population
    assert isinstance(population, Population)
    outcome = run_loop(None, population)
    run, served = RunPlayback(outcome, NS_PER_S), outcome.tries.served
    for moment in range(0, 8 * NS_PER_S, 123_456_789):
        now = run.read(moment)
        has_arrived = (outcome.traffic.times <= moment) & ((served < 0) | (served > moment))
        assert now.in_service + now.queued == int(np.count_nonzero(has_arrived))
        assert now.tries == int(np.count_nonzero(outcome.traffic.times <= moment))


def render_outage(folder: Path, now: int, ascii_only: bool = False) -> list[str]:
    """Render a scenario at a time, on a terminal of 80 columns."""
    run = run_variants(load_variants(str(write(folder, OUTAGE))), (), keep=True)
    playback = LoopPlayback(LoopView(run.comparison, "dark"))
    playback.advance(now)
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(playback.render(80, ascii_only))
    return capture.get().splitlines()


def test_a_frame_shows_goodput_tries_retries_workers_and_queue(tmp_path: Path) -> None:
    lines = render_outage(tmp_path, 9_550_000_000)
    assert lines[0] == "requests served and begun in the last 1 s, and the tries of the last 6.67 s"
    assert lines[1].startswith("patient [")
    assert lines[1].endswith("0/s served, 10/s begun")
    assert lines[2].split()[0].endswith("x")
    assert lines[3].split("  ")[-2:] == ["busy 0 of 2", "queue 0"]
    assert [*map(int, re.findall(r"\d+(?= )", lines[3]))][:3] == [102, 0, 16]
    assert lines[4].startswith("hasty   [")
    assert lines[7] == "| all served  ~ some unanswered  + some failed  x all failed  . no try"
    assert max(map(len, lines)) <= 80


def test_an_ascii_frame_of_tries_has_only_ascii_characters(tmp_path: Path) -> None:
    assert all(line.isascii() for line in render_outage(tmp_path, 5 * NS_PER_S, ascii_only=True))


def test_steps_go_to_the_next_try_of_any_run(tmp_path: Path) -> None:
    run = run_variants(load_variants(str(write(tmp_path, OUTAGE))), (), keep=True)
    playback = LoopPlayback(LoopView(run.comparison, "dark"))
    times = np.unique(np.concatenate([outcome.traffic.times for outcome in run.comparison.outcomes])).tolist()
    for before, after in pairwise(times[:100]):
        playback.advance(before)
        assert playback.next_request() == after
    playback.advance(times[-1])
    assert playback.next_request() is None


def test_without_a_terminal_each_try_is_a_line_followed_by_findings(tmp_path: Path) -> None:
    lines = get_output("watch", write(tmp_path, HELD)).splitlines()
    header = next(number for number, line in enumerate(lines) if line.split()[:2] == ["time", "client"])
    assert [line.split() for line in lines[header : header + 5]] == [
        ["time", "client", "try", "result", "to", "retry"],
        ["0.200s", "web", "1", "served", "1"],
        ["0.200s", "web", "1", "denied", "1"],
        ["1.200s", "web", "2", "served", "0"],
        [],
    ]
    assert "\n".join(lines[header + 5 :]) in get_output("simulate", write(tmp_path, HELD))


def test_lines_name_the_variant_and_show_the_server(tmp_path: Path) -> None:
    lines = get_output("watch", write(tmp_path, OUTAGE)).splitlines()
    header = next(number for number, line in enumerate(lines) if line.split()[:2] == ["time", "variant"])
    assert lines[header].split() == ["time", "variant", "client", "try", "result", "to", "retry", "busy", "queued"]
    first = [line.split() for line in lines[header + 1 : header + 3]]
    assert [row[1] for row in first] == ["patient", "hasty"]
    assert all("ms" in row for row in first)
