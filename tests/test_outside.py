"""An algorithm of one's own, from a file or an installed package, is at home everywhere without a line of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratelab import ALGORITHMS, InputError, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import available, find
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.cli import ratelab_command

BURST = str(Path(__file__).parent.parent / "scenarios" / "burst.yaml")

TOLL = '''\
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Toll:
    """Every second request of a key, whatever `rate` and `burst` say.

    Not of much use.
    """

    name: ClassVar[str] = "toll"
    remembers: ClassVar[tuple[str, ...]] = ("requests",)
    at_most: ClassVar[tuple[int, int]] = (7, 0)

    burst: int

    @classmethod
    def from_quota(cls, quota):
        return cls(quota.burst)

    def start(self, now):
        return [0]

    def step(self, state, now, cost):
        state[0] += cost
        allowed = state[0] % 2 == 1
        return allowed, 0, 0 if allowed else 1, 1, 0
'''


@pytest.fixture(autouse=True)
def no_module_stays() -> Iterator[None]:
    """Forget the modules that a test brings in."""
    yield
    for name in ("tolls", "thief", "broken", "odd"):
        sys.modules.pop(name, None)


@pytest.fixture
def toll(tmp_path: Path) -> str:
    """Write the algorithm to a file, and return how to name it."""
    (tmp_path / "toll.py").write_text(TOLL)
    return f"{tmp_path / 'toll.py'}:Toll"


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


def ratelab(*arguments: str) -> str:
    """Return what a command that succeeds prints."""
    result = CliRunner().invoke(ratelab_command, arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refused(*arguments: str) -> str:
    """Return the one line that a refused command prints."""
    result = CliRunner().invoke(ratelab_command, arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.exception or result.output
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ")


# --- from a file


def test_a_file_is_simulated_beside_ours(toll: str) -> None:
    told = json.loads(ratelab("simulate", BURST, "--json", "--algo", toll, "--algo", "token-bucket"))
    assert [(one["algorithm"], one["admitted"]) for one in told["results"]] == [("toll", 15), ("token-bucket", 14)]
    assert "\ntoll " in ratelab("simulate", BURST, "--algo", toll, "--timeline")


def test_a_file_replays_a_trace(toll: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time,ip\n" + "1,a\n" * 5 + "1,b\n")
    told = json.loads(ratelab("replay", f"{tmp_path}/trace.csv", "--rate", "1/s", "--json", "--algo", toll))
    assert [(one["client"], one["admitted"]) for one in told["results"][0]["per_client"]] == [("a", 3), ("b", 1)]


def test_a_key_starts_when_its_first_request_comes(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("at_ns,ip\n3,a\n4,b\n5,b\n")
    algorithm = written(tmp_path, "return [0]", "return [now]")  # the first is let through if that is even
    told = json.loads(ratelab("replay", f"{tmp_path}/trace.csv", "--rate", "1/s", "--json", "--algo", algorithm))
    assert [(one["client"], one["admitted"]) for one in told["results"][0]["per_client"]] == [("a", 0), ("b", 1)]


def test_a_file_is_listed_with_what_it_says_of_itself(toll: str) -> None:
    told = json.loads(ratelab("algorithms", "--json", "--algo", toll))
    assert told["algorithms"] == [
        {
            "algorithm": "toll",
            "meaning": "Every second request of a key, whatever rate and burst say.",
            "remembers": "requests",
            "state_bytes_per_key": 8,
            "at_most": "7x burst",
        }
    ]
    assert "toll" in ratelab("algorithms", "--algo", toll, "--algo", "all")


def test_a_file_serves_a_limiter(toll: str) -> None:
    limiter = MemoryLimiter(create(toll, "2/s", burst=5), ManualClock())
    assert [limiter.hit("alice").allowed for _ in range(4)] == [True, False, True, False]


def test_a_file_named_twice_is_run_once(toll: str) -> None:
    told = json.loads(ratelab("simulate", BURST, "--json", "--algo", toll, "--algo", toll))
    assert len(told["results"]) == 1


# --- from a package


def test_a_package_is_listed_simulated_and_built_by_name(installed: str) -> None:
    assert {*available()} == {*ALGORITHMS, installed}
    listed = [one["algorithm"] for one in json.loads(ratelab("algorithms", "--json"))["algorithms"]]
    assert sorted(listed) == sorted([*ALGORITHMS, installed])
    for named in (["--algo", installed], ["--algo", "all"]):
        told = json.loads(ratelab("simulate", BURST, "--json", *named))
        assert [one["admitted"] for one in told["results"] if one["algorithm"] == installed] == [15]
    assert create(installed, "2/s", 5).start(0) == [0]


def test_a_package_may_be_named_in_a_scenario(installed: str, tmp_path: Path) -> None:
    text = Path(BURST).read_text(encoding="utf-8").replace("seed: 42", f"algorithms: [{installed}, gcra]")
    (tmp_path / "mine.yaml").write_text(text)
    told = json.loads(ratelab("simulate", f"{tmp_path}/mine.yaml", "--json"))
    assert [one["algorithm"] for one in told["results"]] == [installed, "gcra"]


def test_a_package_is_suggested_for_a_name_like_its_own(installed: str) -> None:
    assert "unknown algorithm 'tol': did you mean toll?" in refused("simulate", BURST, "--algo", "tol")


def test_a_package_is_found_by_a_program_of_its_own(tmp_path: Path) -> None:
    install(tmp_path, "tolls", TOLL, "toll = tolls:Toll")
    command = [sys.executable, "-m", "ratelab", "simulate", BURST, "--algo", "all", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert {one["algorithm"] for one in json.loads(done.stdout)["results"]} == {*ALGORITHMS, "toll"}


def test_a_package_cannot_take_the_name_of_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "thief", TOLL, "token-bucket = thief:Toll")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("token-bucket") is available()["token-bucket"] is TokenBucket


def test_a_broken_package_is_told_and_harms_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "broken", "import no_such_module\n", "broken = broken:Toll")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = refused("simulate", BURST, "--algo", "all")
    assert "ratelab.algorithms entry 'broken' (broken:Toll) cannot be loaded" in said
    assert "No module named 'no_such_module'" in said
    assert "gcra" in ratelab("simulate", BURST, "--algo", "gcra")


def test_a_package_whose_class_is_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "odd", "def toll(): ...\n", "odd = odd:toll", "gone = odd:Gone")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "odd" in refused("algorithms")


# --- what is wrong


def test_a_file_that_is_not_there_is_told() -> None:
    assert refused("simulate", BURST, "--algo", "no.py:X") == "no file 'no.py': give --algo a name or FILE.py:CLASS\n"
    assert "or FILE.py:CLASS" in refused("simulate", BURST, "--algo", "no.py")
    assert "no file '.py'" in refused("simulate", BURST, "--algo", ".py:X")


def test_a_name_that_another_algorithm_has_is_told(toll: str, tmp_path: Path) -> None:
    (tmp_path / "clash.py").write_text(TOLL.replace('"toll"', '"gcra"'))
    said = refused("simulate", BURST, "--algo", f"{tmp_path}/clash.py:Toll", "--algo", "gcra")
    assert said == "two algorithms are called 'gcra': give each a name of its own\n"
    (tmp_path / "again.py").write_text(TOLL)
    assert "two algorithms are called 'toll'" in refused(
        "simulate", BURST, "--algo", toll, "--algo", f"{tmp_path}/again.py:Toll"
    )


FIVE = "start() must return a list of integers and step() allowed, remaining, retry_after_ns, reset_after_ns and delay"
STEP = "return allowed, 0, 0 if allowed else 1, 1, 0"

CANNOT_BE_LOADED = {
    "a syntax error": ("    burst: int\n", "    burst int\n", "line 18: SyntaxError: invalid syntax"),
    "a missing import": ("from typing import ClassVar", "import no_such_module", "line 4: ModuleNotFoundError: No mod"),
    "an error of its own": ("@dataclass(frozen=True, slots=True)", "1 / 0", "line 7: ZeroDivisionError: division by"),
    "an error further down": (
        "@dataclass(frozen=True, slots=True)", "__import__('json').loads('{')", "line 7: JSONDecodeError: Expecting"
    ),
    "an exit": ("@dataclass(frozen=True, slots=True)", "raise SystemExit", "line 7: SystemExit"),
    "no such class": ("class Toll", "class Tool", "has no class 'Toll'"),
    "no class": ("@dataclass(frozen=True, slots=True)\nclass Toll", "Toll = 5\nclass Tool", "Toll lacks name, from_"),
    "no step": ("def step", "def stop", "Toll lacks step: an algorithm is a class with name, from_quota, start, step"),
    "no start": ("def start", "def stare", "Toll lacks start: an algorithm is a class with name"),
    "no name": ('name: ClassVar[str] = "toll"', "", "Toll lacks name: an algorithm is a class with name"),
    "a name that is no text": ('= "toll"', "= 5", "name"),
    "a quota it fails on": ("return cls(quota.burst)", "raise OSError('odd')", "OSError: odd"),
}  # fmt: skip

CANNOT_BE_RUN = {
    "an error in start": ("return [0]", "return [1 // 0]", "toll failed: ZeroDivisionError"),
    "no state": ("return [0]", "return None", "toll failed: TypeError"),
    "an error in step": (STEP, "raise KeyError(now)", "toll failed: KeyError: 0"),
    "four fields": (STEP, "return allowed, 0, 1, 1", FIVE),
    "six fields": (STEP, "return allowed, 0, 1, 1, 0, 0", FIVE),
    "no fields": (STEP, "return allowed", FIVE),
    "nothing": (STEP, "pass", FIVE),
    "words": (STEP, "return 'yes', 'none', 'never', 'soon', 'now'", FIVE),
    "floats": (STEP, "return allowed, 1.5, 0.5, 1.5, 0.25", FIVE),
    "whole floats": (STEP, "return allowed, 1.0, 0.0, 1.0, 0.0", FIVE),
    "infinity": (STEP, "return allowed, 0, float('inf'), 1, 0", FIVE),
    "numbers beyond a column": (STEP, "return allowed, 0, 2**63, 1, 0", FIVE),
}


def written(folder: Path, right: str, wrong: str) -> str:
    """Write the algorithm with a mistake in it, and return how to name it."""
    assert TOLL.count(right) == 1
    (folder / "mine.py").write_text(TOLL.replace(right, wrong))
    return f"{folder / 'mine.py'}:Toll"


@pytest.mark.parametrize("command", [("simulate", BURST), ("algorithms",)], ids=["simulate", "algorithms"])
@pytest.mark.parametrize(("right", "wrong", "says"), CANNOT_BE_LOADED.values(), ids=CANNOT_BE_LOADED.keys())
def test_what_cannot_be_loaded_is_one_line_with_its_place(
    tmp_path: Path, command: tuple[str, ...], right: str, wrong: str, says: str
) -> None:
    assert says in refused(*command, "--algo", written(tmp_path, right, wrong))


@pytest.mark.parametrize(("right", "wrong", "says"), CANNOT_BE_RUN.values(), ids=CANNOT_BE_RUN.keys())
def test_what_fails_on_the_way_is_one_line_with_the_rule(tmp_path: Path, right: str, wrong: str, says: str) -> None:
    said = refused("simulate", BURST, "--algo", written(tmp_path, right, wrong))
    assert "toll failed: " in said
    assert says in said


@pytest.mark.parametrize("wrong", ["return [1 // 0]", "return None"])
def test_a_listing_of_what_cannot_start_is_one_line(tmp_path: Path, wrong: str) -> None:
    assert "toll" in refused("algorithms", "--algo", written(tmp_path, "return [0]", wrong))


def test_a_quota_that_it_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    refusal = "from ratelab import InputError; raise InputError('toll takes no burst above 3')"
    algorithm = written(tmp_path, "return cls(quota.burst)", refusal)
    assert refused("simulate", BURST, "--algo", algorithm) == "toll takes no burst above 3\n"
    told = json.loads(ratelab("algorithms", "--json", "--algo", algorithm))
    assert told["algorithms"][0]["state_bytes_per_key"] is None
    with pytest.raises(InputError, match="toll takes no burst above 3"):
        create(algorithm, Quota.parse("2/s"))
