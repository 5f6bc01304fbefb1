"""The engine for Ray in the manual."""

from __future__ import annotations

import os
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from inline_engine import write_random_log
from killing_task import KillingEngine, NumberTask, WaitingTask

import ratelab
from ratelab.algorithms import parse_policy
from ratelab.lab import comparison
from ratelab.lab.traces import read_traces
from ratelab.report.serialize import serialize_comparison

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PAGE = Path(ratelab.__file__).parent / "docs" / "cluster.md"


def load_code() -> dict[str, Any]:
    """Execute the code of the page; return its names."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)  # noqa: S102  (our own text)
    return names


def test_the_engine_of_the_manual_finds_what_one_process_finds(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for seed, path in enumerate(paths):
        write_random_log(path, seed, 200)
    found = load_code()["replay_on_ray"]([*map(str, paths)], str(tmp_path / "exchange"))
    expected = comparison.compare([parse_policy("gcra:100/min:40")], read_traces([*map(str, paths)]).traffic)
    assert serialize_comparison(found, {}) == serialize_comparison(expected, {})
    assert [*(tmp_path / "exchange").iterdir()] == []


def test_the_engine_of_the_manual_repeats_tasks_and_cancels_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # workers find these tasks
    with closing(load_code()["RayEngine"]()) as engine:
        killing = KillingEngine(engine, "number", tmp_path / "killed")
        assert sorted(killing.map(NumberTask(), range(3))) == [(0, 0), (1, 1), (2, 2)]
        assert (tmp_path / "killed").exists()
        tasks = engine.map(WaitingTask(), range(5))
        assert next(tasks)[0] == 0
        tasks.close()
        assert sorted(engine.map(NumberTask(), range(3))) == [(0, 0), (1, 1), (2, 2)]
