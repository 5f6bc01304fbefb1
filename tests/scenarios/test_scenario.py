"""Scenario files: all keys, defaults, overrides and the description of clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from invalid_scenarios import VALID

from ratelab import Quota
from ratelab.algorithms import COMPARED
from ratelab.lab.scenarios import Scenario, load_scenario
from ratelab.quota import NS_PER_S

EVERYTHING = """\
name: burst
description: A quiet client that suddenly sends twenty requests at once.
duration: 10s
seed: 42
quota: {rate: 2/s, burst: 5}              # for every algorithm
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


def write_and_load(path: Path, content: str) -> Scenario:
    path.write_text(content, encoding="utf-8")
    return load_scenario(str(path))


def get_send_times(path: Path, pattern: str) -> list[float]:
    """Return the times in seconds of the valid file's requests, with another pattern."""
    traffic = write_and_load(path, VALID.replace("{pattern: steady, rate: 1/s}", pattern)).traffic
    return [time / NS_PER_S for time in traffic.times.tolist()]


def test_a_file_may_have_every_pattern_at_once(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text(LOG)
    scenario = write_and_load(tmp_path / "all.yaml", EVERYTHING)
    assert (scenario.name, scenario.seed, scenario.quota) == ("burst", 42, Quota.parse("2/s", burst=5))
    assert scenario.description == "A quiet client that suddenly sends twenty requests at once."
    assert scenario.algorithms == COMPARED[:4]
    traffic = scenario.traffic
    assert (traffic.names, traffic.keys.tolist(), traffic.duration) == (("alice",), [0], 10 * NS_PER_S)
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
def test_a_pattern_sends_at_the_expected_times(tmp_path: Path, pattern: str, times: list[float]) -> None:
    (tmp_path / "access.log").write_text(LOG)
    assert get_send_times(tmp_path / "one.yaml", pattern) == times


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("{pattern: ramp, start: 1/s, end: 20/s}", 105),
        ("{pattern: wave, mean: 5/s, amplitude: 4/s, cycle: 10s}", 50),
        ("{pattern: wave, mean: 5/s, amplitude: 4/s, cycle: 10s, to: 5s}", 38),
    ],
)
def test_a_pattern_sends_the_expected_number_of_requests(tmp_path: Path, pattern: str, count: int) -> None:
    assert len(get_send_times(tmp_path / "one.yaml", pattern)) == count


def test_a_trace_is_in_the_folder_of_its_scenario_for_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_text(LOG)
    Path("one.yaml").write_text(VALID.replace("{pattern: steady, rate: 1/s}", "{pattern: trace, file: '-'}"))
    assert len(load_scenario("one.yaml").traffic) == 4


def test_optional_keys_have_defaults(tmp_path: Path) -> None:
    brief = "name: x\nduration: 2s\nquota: {rate: 3/s}\nclients: [{name: a, traffic: [{pattern: steady, rate: 1/s}]}]"
    scenario = write_and_load(tmp_path / "brief.yaml", brief)
    assert (scenario.seed, scenario.quota, scenario.algorithms) == (0, Quota.parse("3/s", burst=3), COMPARED)
    assert scenario.traffic.costs.tolist() == [1, 1]
    assert scenario.traffic.origin == 0


def test_arguments_override_the_values_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(VALID)
    assert load_scenario(str(path), rate="100/min").quota == Quota.parse("100/min", burst=5)
    assert load_scenario(str(path), burst=9).quota == Quota.parse("2/s", burst=9)
    assert load_scenario(str(path), "3/s", 4, 9).quota == Quota.parse("3/s", burst=4)
    assert [load_scenario(str(path), seed=seed).seed for seed in (None, 0, 9)] == [1, 0, 9]


def test_another_seed_draws_different_traffic(tmp_path: Path) -> None:
    path = tmp_path / "chance.yaml"
    path.write_text(VALID.replace("steady", "poisson"))
    from_file, same, other = (load_scenario(str(path), seed=seed).traffic.times.tolist() for seed in (None, 1, 2))
    assert from_file == same != other


def test_a_count_makes_clients_numbered_from_one(tmp_path: Path) -> None:
    traffic = write_and_load(tmp_path / "crowd.yaml", VALID.replace("cost: 1", "count: 3")).traffic
    assert traffic.names == ("alice-1", "alice-2", "alice-3")
    assert traffic.keys.tolist() == [0, 1, 2]
    assert len(traffic) == 30


def test_clients_with_the_same_key_share_a_quota(tmp_path: Path) -> None:
    same = "traffic: [{pattern: steady, rate: 1/s}]"
    others = f"  - {{name: bob, {same}}}\n  - {{name: eve, key: all, {same}}}\n"
    traffic = write_and_load(
        tmp_path / "shared.yaml", VALID.replace("cost: 1", "count: 2\n    key: all") + others
    ).traffic
    assert traffic.names == ("alice-1", "alice-2", "bob", "eve")
    assert traffic.keys.tolist() == [0, 0, 1, 0]


def test_simultaneous_requests_keep_the_order_of_the_file(tmp_path: Path) -> None:
    traffic = write_and_load(tmp_path / "crowd.yaml", VALID.replace("cost: 1", "count: 3")).traffic
    assert traffic.clients.tolist() == [0, 1, 2] * 10


def test_words_that_yaml_reads_as_booleans_are_text(tmp_path: Path) -> None:
    words = VALID.replace("good", "no").replace("alice", "yes")
    pattern = "\n        pattern: on-off\n        rate: 1/s\n        on: 1s\n        off: 1s"
    scenario = write_and_load(tmp_path / "words.yaml", words.replace("{pattern: steady, rate: 1/s}", pattern))
    assert (scenario.name, scenario.traffic.names, len(scenario.traffic)) == ("no", ("yes",), 5)


def test_an_anchor_may_be_reused(tmp_path: Path) -> None:
    again = VALID.replace("rate: 2/s", "rate: &pace 2/s").replace("rate: 1/s", "rate: *pace")
    assert len(write_and_load(tmp_path / "anchor.yaml", again).traffic) == 20


@pytest.mark.parametrize("content", [f"\ufeff{VALID}", VALID.replace("\n", "\r\n"), f"---\n{VALID}...\n"])
def test_byte_order_marks_and_line_ends_of_editors_are_accepted(tmp_path: Path, content: str) -> None:
    (tmp_path / "edited.yaml").write_bytes(content.encode())
    assert load_scenario(str(tmp_path / "edited.yaml")).name == "good"


@pytest.mark.parametrize("folded", ["|\n  Two\n  lines.", ">\n  Two\n  lines.", ">-\n  Two\n  lines.", "Two\n  lines."])
def test_a_description_may_span_lines(tmp_path: Path, folded: str) -> None:
    assert write_and_load(tmp_path / "long.yaml", f"description: {folded}\n{VALID}").description.split() == [
        "Two",
        "lines.",
    ]
