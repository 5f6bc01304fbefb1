"""Scenario files: every field, and the defaults of optional ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invalid_scenarios import GOOD

from ratelab import Quota
from ratelab.algorithms import COMPARED
from ratelab.lab.scenarios import Scenario, load_scenario

SECOND = 10**9

EVERYTHING = """\
name: burst
description: A quiet client that suddenly sends twenty requests at once.
duration: 10s
seed: 42
quota: {rate: 2/s, burst: 5}              # every algorithm gets this one
algorithms: [token-bucket, leaky-bucket, fixed-window, sliding-log]
clients:
  - name: alice
    traffic:
      - {pattern: steady,  rate: 1/s}
      - {pattern: burst,   at: 3s, size: 20, spacing: 10ms}
      - {pattern: poisson, rate: 3/s, from: 5s, to: 9s}
      - {pattern: ramp,    from: 0s, to: 10s, start: 1/s, end: 20/s}
      - {pattern: wave,    mean: 5/s, amplitude: 4/s, cycle: 1min}
      - {pattern: on-off,  rate: 20/s, on: 1s, off: 4s}
      - {pattern: at,      times: [0s, 0.5s, 0.5s, 2s]}
      - {pattern: trace,   file: access.log}
    cost: {1: 0.9, 10: 0.1}
"""

LOG = "".join(f'192.0.2.7 - - [17/May/2015:10:05:0{second} +0000] "GET / HTTP/1.1" 200 12\n' for second in (3, 3, 4, 9))


def loaded(path: Path, content: str) -> Scenario:
    path.write_text(content, encoding="utf-8")
    return load_scenario(str(path))


def sent(path: Path, pattern: str) -> list[float]:
    """Return when the good file's client sends its requests, in seconds, if it follows `pattern`."""
    traffic = loaded(path, GOOD.replace("{pattern: steady, rate: 1/s}", pattern)).traffic
    return [time / SECOND for time in traffic.times.tolist()]


def test_a_file_may_have_every_pattern_at_once(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text(LOG)
    scenario = loaded(tmp_path / "all.yaml", EVERYTHING)
    assert (scenario.name, scenario.seed, scenario.quota) == ("burst", 42, Quota.parse("2/s", burst=5))
    assert scenario.description == "A quiet client that suddenly sends twenty requests at once."
    assert scenario.algorithms == COMPARED[:4]
    traffic = scenario.traffic
    assert (traffic.names, traffic.keys.tolist(), traffic.duration) == (("alice",), [0], 10 * SECOND)
    assert len(traffic) == 10 + 20 + 11 + 105 + 70 + 40 + 4 + 4  # the 11 are drawn, the same everywhere
    assert (np.diff(traffic.times) >= 0).all()
    assert set(traffic.costs.tolist()) == {1, 10}


@pytest.mark.parametrize(
    ("pattern", "times"),
    [
        ("{pattern: steady, rate: 1/s, from: 7s}", [7, 8, 9]),
        ("{pattern: steady, rate: 1/s, from: 1.5s, to: 3s}", [1.5, 2.5]),
        ("{pattern: burst, at: 3s, size: 3, spacing: 10ms}", [3, 3.01, 3.02]),
        ("{pattern: burst, at: 3s, size: 3}", [3, 3, 3]),
        ("{pattern: on-off, rate: 2/s, on: 1s, off: 4s}", [0, 0.5, 5, 5.5]),
        ("{pattern: on-off, rate: 2/s, on: 1s, off: 4s, from: 6s}", [6, 6.5]),
        ("{pattern: at, times: [2s, 0s, 0.5s, 500ms]}", [0, 0.5, 0.5, 2]),
        ("{pattern: trace, file: access.log}", [0, 0.5, 1, 6]),
        ("{pattern: trace, file: ./access.log, from: 3s}", [3, 3.5, 4, 9]),
    ],
)
def test_a_pattern_sends_at_the_given_times(tmp_path: Path, pattern: str, times: list[float]) -> None:
    (tmp_path / "access.log").write_text(LOG)
    assert sent(tmp_path / "one.yaml", pattern) == times


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("{pattern: ramp, start: 1/s, end: 20/s}", 105),
        ("{pattern: wave, mean: 5/s, amplitude: 4/s, cycle: 10s}", 50),
        ("{pattern: wave, mean: 5/s, amplitude: 4/s, cycle: 10s, to: 5s}", 38),
    ],
)
def test_a_pattern_sends_the_given_number_of_requests(tmp_path: Path, pattern: str, count: int) -> None:
    assert len(sent(tmp_path / "one.yaml", pattern)) == count


def test_a_trace_is_found_next_to_its_scenario_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_text(LOG)
    Path("one.yaml").write_text(GOOD.replace("{pattern: steady, rate: 1/s}", "{pattern: trace, file: '-'}"))
    assert len(load_scenario("one.yaml").traffic) == 4


def test_omitted_fields_have_defaults(tmp_path: Path) -> None:
    brief = "name: x\nduration: 2s\nquota: {rate: 3/s}\nclients: [{name: a, traffic: [{pattern: steady, rate: 1/s}]}]"
    scenario = loaded(tmp_path / "brief.yaml", brief)
    assert (scenario.seed, scenario.quota, scenario.algorithms) == (0, Quota.parse("3/s", burst=3), COMPARED)
    assert scenario.traffic.costs.tolist() == [1, 1]
    assert scenario.traffic.origin == 0


def test_arguments_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert load_scenario(str(path), rate="100/min").quota == Quota.parse("100/min", burst=5)
    assert load_scenario(str(path), burst=9).quota == Quota.parse("2/s", burst=9)
    assert load_scenario(str(path), "3/s", 4, 9).quota == Quota.parse("3/s", burst=4)
    assert [load_scenario(str(path), seed=seed).seed for seed in (None, 0, 9)] == [1, 0, 9]


def test_another_seed_draws_other_traffic(tmp_path: Path) -> None:
    path = tmp_path / "chance.yaml"
    path.write_text(GOOD.replace("steady", "poisson"))
    written, same, other = (load_scenario(str(path), seed=seed).traffic.times.tolist() for seed in (None, 1, 2))
    assert written == same != other


def test_a_count_creates_clients_numbered_from_one(tmp_path: Path) -> None:
    traffic = loaded(tmp_path / "crowd.yaml", GOOD.replace("cost: 1", "count: 3")).traffic
    assert traffic.names == ("alice-1", "alice-2", "alice-3")
    assert traffic.keys.tolist() == [0, 1, 2]
    assert len(traffic) == 30


def test_clients_of_one_key_share_one_quota(tmp_path: Path) -> None:
    same = "traffic: [{pattern: steady, rate: 1/s}]"
    others = f"  - {{name: bob, {same}}}\n  - {{name: eve, key: all, {same}}}\n"
    traffic = loaded(tmp_path / "shared.yaml", GOOD.replace("cost: 1", "count: 2\n    key: all") + others).traffic
    assert traffic.names == ("alice-1", "alice-2", "bob", "eve")
    assert traffic.keys.tolist() == [0, 0, 1, 0]


def test_requests_at_one_time_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    traffic = loaded(tmp_path / "crowd.yaml", GOOD.replace("cost: 1", "count: 3")).traffic
    assert traffic.clients.tolist() == [0, 1, 2] * 10


def test_words_that_yaml_reads_as_booleans_stay_text(tmp_path: Path) -> None:
    words = GOOD.replace("good", "no").replace("alice", "yes")
    pattern = "\n        pattern: on-off\n        rate: 1/s\n        on: 1s\n        off: 1s"
    scenario = loaded(tmp_path / "words.yaml", words.replace("{pattern: steady, rate: 1/s}", pattern))
    assert (scenario.name, scenario.traffic.names, len(scenario.traffic)) == ("no", ("yes",), 5)


def test_an_anchor_may_be_used_again(tmp_path: Path) -> None:
    again = GOOD.replace("rate: 2/s", "rate: &pace 2/s").replace("rate: 1/s", "rate: *pace")
    assert len(loaded(tmp_path / "anchor.yaml", again).traffic) == 20


@pytest.mark.parametrize("content", [f"\ufeff{GOOD}", GOOD.replace("\n", "\r\n"), f"---\n{GOOD}...\n"])
def test_bytes_that_editors_add_are_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / "edited.yaml").write_bytes(content.encode())
    assert load_scenario(str(tmp_path / "edited.yaml")).name == "good"


@pytest.mark.parametrize("folded", ["|\n  Two\n  lines.", ">\n  Two\n  lines.", ">-\n  Two\n  lines.", "Two\n  lines."])
def test_a_description_may_have_several_lines(tmp_path: Path, folded: str) -> None:
    assert loaded(tmp_path / "long.yaml", f"description: {folded}\n{GOOD}").description.split() == ["Two", "lines."]
