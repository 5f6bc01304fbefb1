"""The benchmarks run and tell each figure beside its floor; what they measure is for people to judge."""

from __future__ import annotations

from running import told

from ratelab.bench import BENCHMARKS
from ratelab.cli.bench import NAMES


def test_the_command_knows_every_benchmark() -> None:
    assert (*BENCHMARKS,) == NAMES


def test_a_hit_is_timed_beside_its_floor_for_one_key_and_for_many() -> None:
    figures = told("bench", "hit")["figures"]
    assert [figure["what"].rpartition(", ")[2] for figure in figures] == ["1 key", "100,000 keys"]
    assert all(figure["measured"] > figure["floor"] > 0 and figure["ratio"] > 1 for figure in figures)
