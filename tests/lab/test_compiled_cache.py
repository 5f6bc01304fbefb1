"""Cache of compiled code on disk: it depends on the source, and a damaged one is replaced."""

from __future__ import annotations

import pickle
from inspect import getfile
from pathlib import Path

import numba
import pytest
from engine_comparison import QUOTA, assert_same, draw_traffic

from ratelab import create
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.lab.compiled import intrinsics, loops, specialize, states
from ratelab.lab.decisions import ADMISSION_FIELDS

pytestmark = pytest.mark.slow

DAMAGED = [b"", b"half", pickle.dumps(numba.__version__) + b"cratelab.lab.compiled\ngone\n."]
"""Contents of an index; the last is that of another version."""


def test_a_damaged_cache_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for content in (b"", *DAMAGED):
        for index in tmp_path.rglob("*.nbi"):  # at first, there is none
            index.write_bytes(content)
        loops._compile.cache_clear()
        states._compile_fill.cache_clear()
        monkeypatch.setitem(loops._LOOPS, ADMISSION_FIELDS, intrinsics.jit(loops._decide_admitted))
        monkeypatch.setattr(states, "_FILL", intrinsics.jit(states._fill))
        assert_same(create("sliding-log", QUOTA).algorithm, draw_traffic(QUOTA), ADMISSION_FIELDS)
        assert {path.stat().st_size > 200 for path in tmp_path.rglob("*.nbi")} == {True}


def test_code_that_cannot_be_cached_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    loops._compile.cache_clear()
    loop = intrinsics.jit(loops._decide_admitted)
    monkeypatch.setattr(loop._cache, "save_overload", full)
    monkeypatch.setitem(loops._LOOPS, ADMISSION_FIELDS, loop)
    assert_same(create("gcra", QUOTA).algorithm, draw_traffic(QUOTA), ADMISSION_FIELDS)
    loops._compile.cache_clear()


class Inherited(SlidingLog):
    """A class whose step is in another file."""


def test_code_depends_on_an_inherited_step() -> None:
    _, source, _ = specialize._rewrite(Inherited, ("burst", "window"), "", True)
    assert Path(getfile(SlidingLog)).read_bytes() in source


def test_code_depends_on_the_source_of_the_compiled_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = type(specialize.create_stand_in(create("gcra", QUOTA).algorithm, 1, True)).__name__
    monkeypatch.setattr(specialize, "_read_engine", lambda: b"another source")
    assert type(specialize.create_stand_in(create("gcra", QUOTA).algorithm, 1, True)).__name__ != before
