"""Third-party algorithms from files and installed packages, in every command and in a limiter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from cli_runner import BURST, get_error, get_json, get_output
from custom_algorithms import TOLL, written

from ratelab import ALGORITHMS, ManualClock, MemoryLimiter, Quota, State, Traits, create, traits_of
from ratelab.algorithms import available, find
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.decisions import FIGURE_FIELDS
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Row


@pytest.fixture(autouse=True)
def no_module_stays() -> Iterator[None]:
    """Forget the modules that a test brings in."""
    yield
    for name in ("tolls", "thief", "broken", "odd"):
        sys.modules.pop(name, None)


def install(folder: Path, name: str, code: str, *entries: str) -> None:
    """Put a module into `folder` as if its package had been installed there."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[ratelab.algorithms]", *entries, ""]))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a package that offers the algorithm, and return its name."""
    install(tmp_path, "tolls", TOLL, "toll = tolls:Toll")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "toll"


# --- from a file


def test_a_file_is_simulated_next_to_a_built_in_algorithm(toll: str) -> None:
    printed = json.loads(get_output("simulate", BURST, "--json", "--algo", toll, "--algo", "token-bucket"))
    assert [(one["algorithm"], one["admitted"]) for one in printed["results"]] == [("toll", 15), ("token-bucket", 14)]
    assert "\ntoll " in get_output("simulate", BURST, "--algo", toll, "--timeline")


def test_a_file_replays_a_trace(toll: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time,ip\n" + "1,a\n" * 5 + "1,b\n")
    printed = json.loads(get_output("replay", f"{tmp_path}/trace.csv", "--rate", "1/s", "--json", "--algo", toll))
    assert [(one["client"], one["admitted"]) for one in printed["results"][0]["per_client"]] == [("a", 3), ("b", 1)]


def test_a_key_starts_at_its_first_request(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("at_ns,ip\n3,a\n4,b\n5,b\n")
    algorithm = written(tmp_path, "return [0]", "return [now]")  # admits the first request if the number is even
    printed = json.loads(get_output("replay", f"{tmp_path}/trace.csv", "--rate", "1/s", "--json", "--algo", algorithm))
    assert [(one["client"], one["admitted"]) for one in printed["results"][0]["per_client"]] == [("a", 0), ("b", 1)]


def test_a_file_is_listed_with_its_traits_and_docstring(toll: str) -> None:
    printed = json.loads(get_output("algorithms", "--json", "--algo", toll))
    assert printed["algorithms"] == [
        {
            "algorithm": "toll",
            "meaning": "Every second request of a key, whatever rate and burst say.",
            "remembers": "requests",
            "state_bytes_per_key": 8,
            "at_most": "7x burst",
        }
    ]
    assert "toll" in get_output("algorithms", "--algo", toll, "--algo", "all")


def test_a_limiter_enforces_an_algorithm_from_a_file(toll: str) -> None:
    limiter = MemoryLimiter(create(toll, "2/s", burst=5), ManualClock())
    assert [limiter.hit("alice").allowed for _ in range(4)] == [True, False, True, False]


def test_a_file_named_twice_is_replayed_once(toll: str) -> None:
    printed = json.loads(get_output("simulate", BURST, "--json", "--algo", toll, "--algo", toll))
    assert len(printed["results"]) == 1


@pytest.mark.parametrize("enabled", [False, True])
def test_loading_a_file_leaves_no_bytecode_next_to_it(
    toll: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", not enabled)
    find(toll)
    assert [path.name for path in tmp_path.iterdir()] == ["toll.py"]
    assert sys.dont_write_bytecode is not enabled


# --- from a package


def test_a_plugin_is_listed_simulated_and_created_by_name(installed: str) -> None:
    assert {*available()} == {*ALGORITHMS, installed}
    listed = [one["algorithm"] for one in json.loads(get_output("algorithms", "--json"))["algorithms"]]
    assert sorted(listed) == sorted([*ALGORITHMS, installed])
    for named in (["--algo", installed], ["--algo", "all"]):
        printed = json.loads(get_output("simulate", BURST, "--json", *named))
        assert [one["admitted"] for one in printed["results"] if one["algorithm"] == installed] == [15]
    assert create(installed, "2/s", 5).start(0) == [0]


def test_a_scenario_may_name_a_plugin(installed: str, tmp_path: Path) -> None:
    text = Path(BURST).read_text(encoding="utf-8").replace("seed: 42", f"algorithms: [{installed}, gcra]")
    (tmp_path / "mine.yaml").write_text(text)
    printed = json.loads(get_output("simulate", f"{tmp_path}/mine.yaml", "--json"))
    assert [one["algorithm"] for one in printed["results"]] == [installed, "gcra"]


def test_a_plugin_is_suggested_for_a_similar_name(installed: str) -> None:
    assert "unknown algorithm 'tol': did you mean toll?" in get_error("simulate", BURST, "--algo", "tol")


@pytest.mark.slow
def test_a_plugin_is_found_by_the_command_line(tmp_path: Path) -> None:
    install(tmp_path, "tolls", TOLL, "toll = tolls:Toll")
    command = [sys.executable, "-m", "ratelab", "simulate", BURST, "--algo", "all", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert {one["algorithm"] for one in json.loads(done.stdout)["results"]} == {*ALGORITHMS, "toll"}


def test_a_plugin_cannot_replace_a_built_in_algorithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "thief", TOLL, "token-bucket = thief:Toll")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("token-bucket") is available()["token-bucket"] is TokenBucket


def test_a_broken_plugin_is_reported_and_affects_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "broken", "import no_such_module\n", "broken = broken:Toll")
    monkeypatch.syspath_prepend(str(tmp_path))
    error = get_error("simulate", BURST, "--algo", "all")
    assert "ratelab.algorithms entry 'broken' (broken:Toll) cannot be loaded" in error
    assert "No module named 'no_such_module'" in error
    assert "gcra" in get_output("simulate", BURST, "--algo", "gcra")


def test_a_plugin_that_is_not_a_class_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "odd", "def toll(): ...\n", "odd = odd:toll", "gone = odd:Gone")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "odd" in get_error("algorithms")


DELAYED = TOLL.replace("from typing", "from functools import wraps\nfrom typing").replace(
    "    def step(",
    "    def delayed(step):\n"
    "        return wraps(step)(lambda *arguments: (*step(*arguments)[:4], 5))\n\n"
    "    @delayed\n"
    "    def step(",
)


def test_delays_of_a_plugin_are_kept(tmp_path: Path) -> None:
    (tmp_path / "delayed.py").write_text(DELAYED)
    delayed = create(f"{tmp_path / 'delayed.py'}:Toll", "1/s", 1)
    times, ones, client = np.arange(3), np.ones(3, np.int64), np.zeros(3, np.int64)
    asked = Traffic(times, client, ones, ("a",), np.arange(1), 3)
    assert replay(delayed, asked, FIGURE_FIELDS).decisions["delay_ns"][:].tolist() == [5, 5, 5]


# --- traits


class Unchanged(TokenBucket):
    """A token bucket by another name."""

    name = "unchanged"


class Slower(TokenBucket):
    """A token bucket with its own step."""

    name = "slower"

    def step(self, state: State, now: int, cost: int) -> Row:
        return super().step(state, now, 2 * cost)


class Declared(Slower):
    """A token bucket with its own step, which describes it."""

    name = "declared"
    traits: ClassVar[Traits] = Traits(state=("tokens", "time"), at_most=(1, 0))


def test_a_class_without_traits_may_queue_and_declares_no_bound(tmp_path: Path) -> None:
    file = written(tmp_path, '    traits: ClassVar[Traits] = Traits(state=("requests",), at_most=(7, 0))\n', "")
    undeclared = Traits(state=(), at_most=None, queues=True, level=None, bound=None)
    assert traits_of(find(file)) == traits_of(create(file, "2/s").algorithm) == undeclared


def test_traits_are_inherited_together_with_step() -> None:
    assert traits_of(Unchanged) is traits_of(Unchanged.from_quota(Quota.parse("2/s"))) is TokenBucket.traits


def test_traits_are_not_inherited_by_a_class_with_its_own_step() -> None:
    assert traits_of(Slower) == Traits(queues=True)
    assert traits_of(Declared) is Declared.traits


def test_a_subclass_of_a_built_in_algorithm_uses_its_own_step(tmp_path: Path) -> None:
    (tmp_path / "shut.py").write_text(
        "from ratelab.algorithms.sliding_log import SlidingLog\n"
        "class Shut(SlidingLog):\n"
        "    name = 'shut'\n"
        "    def step(self, state, now, cost): return False, 0, 1, 1, 0\n"
    )
    assert get_json("simulate", BURST, "--algo", f"{tmp_path}/shut.py:Shut")["results"][0]["admitted"] == 0
