"""`ratelab simulate`: one comparison as a table, as JSON and as files, the same names in all of them."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import ratelab
from ratelab import ALGORITHMS, Decision, Quota, create
from ratelab.algorithms import COMPARED
from ratelab.cli import COMMANDS, ratelab_command
from ratelab.lab.scenarios import load_scenario

SCENARIOS = Path(__file__).parent.parent / "scenarios"
EVERY = sorted(SCENARIOS.iterdir())
BURST, HERD, NOISY = (str(SCENARIOS / f"{stem}.yaml") for stem in ("burst", "thundering-herd", "noisy-neighbour"))

FIGURES: dict[str, type | tuple[type, ...]] = {
    "algorithm": str,
    "offered": int,
    "admitted": int,
    "denied": int,
    "delayed": int,
    "admit_ratio": float,
    "peak_in_window": int,
    "overshoot": float,
    "mean_delay": float,
    "max_delay": float,
    "burstiness": (float, type(None)),
    "fairness": (float, type(None)),
    "over_admitted": (int, type(None)),
    "over_denied": (int, type(None)),
    "state_bytes_per_key": int,
    "clients": int,
    "clients_denied": int,
    "clients_denied_ratio": float,
}
PLAIN = {"COLUMNS": None, "FORCE_COLOR": None, "NO_COLOR": None, "TTY_COMPATIBLE": None, "TERM": "dumb"}


def simulate(*arguments: str | Path) -> Result:
    return CliRunner(env=PLAIN).invoke(ratelab_command, ["simulate", *map(str, arguments)])


def shown(*arguments: str | Path) -> str:
    """Return what a run that succeeds prints, and see that it says nothing else."""
    result = simulate(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refused(*arguments: str | Path) -> str:
    """Return the one line that a refused run prints."""
    result = simulate(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert result.stderr.startswith("Error: ")
    return result.stderr


def python(*arguments: str, **environment: str) -> str:
    """Run Python itself, apart from this process, and return what it prints."""
    command = [sys.executable, *arguments]
    env = {name: value for name, value in os.environ.items() if name not in PLAIN} | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- JSON


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_json_is_one_object_of_the_names_and_types_agreed(path: Path) -> None:
    told = json.loads(shown(path, "--json"))
    assert list(told) == ["version", "scenario", "seed", "quota", "offered", "duration", "results"]
    assert (told["version"], told["scenario"]) == (1, path.stem)
    assert list(told["quota"]) == ["rate", "burst", "window"]
    for result in told["results"]:
        assert list(result) == [*FIGURES, "per_client"]
        assert [name for name, kind in FIGURES.items() if not isinstance(result[name], kind)] == []
        assert result["offered"] == told["offered"] == result["admitted"] + result["denied"]
        assert {tuple(row) for row in result["per_client"]} == {("client", "offered", "admitted")}
        assert sum(row["admitted"] for row in result["per_client"]) == result["admitted"]


def test_json_tells_the_run_it_comes_from() -> None:
    told = json.loads(shown(BURST, "--json"))
    assert (told["seed"], told["offered"], told["duration"]) == (42, 30, 10.0)
    assert told["quota"] == {"rate": "2/s", "burst": 5, "window": 2.5}
    assert [result["algorithm"] for result in told["results"]] == list(COMPARED)
    assert told["results"][0]["per_client"] == [{"client": "alice", "offered": 30, "admitted": 14}]


def test_several_scenarios_are_several_runs() -> None:
    told = json.loads(shown(BURST, HERD, "--json"))
    assert list(told) == ["version", "runs"]
    assert told["runs"] == [json.loads(shown(path, "--json")) for path in (BURST, HERD)]


def test_the_same_seed_prints_the_same_bytes_whatever_the_hash_seed() -> None:
    by_chance = [str(path) for path in EVERY if "poisson" in path.read_text(encoding="utf-8")]
    assert len(by_chance) >= 3
    command = ("-m", "ratelab", "simulate", *by_chance, "--json")
    assert python(*command, PYTHONHASHSEED="1") == python(*command, PYTHONHASHSEED="2") == shown(*by_chance, "--json")


# --- what is asked of it


@pytest.mark.parametrize(
    ("options", "quota"),
    [
        ([], "2/s, burst 5"),
        (["--rate", "100/min"], "100/min, burst 5"),
        (["--burst", "9"], "2/s, burst 9"),
        (["--rate", "7/13s", "--burst", "9"], "7/13s, burst 9"),
    ],
)
def test_rate_and_burst_take_the_place_of_the_scenarios(options: list[str], quota: str) -> None:
    assert f"quota for each client: {quota} (window " in shown(BURST, *options)


def test_seed_takes_the_place_of_the_scenarios() -> None:
    seeds: list[list[str]] = [[], ["--seed", "3"], ["--seed", "4"]]
    written, same, other = (json.loads(shown(SCENARIOS / "overload.yaml", "--json", *seed)) for seed in seeds)
    assert written == same
    assert (written["seed"], other["seed"]) == (3, 4)
    assert written["offered"] != other["offered"]


@pytest.mark.parametrize(
    ("options", "algorithms"),
    [
        ([], list(COMPARED)),
        (["--algo", "gcra"], ["gcra"]),
        (["-a", "sliding-log", "-a", "gcra"], ["sliding-log", "gcra"]),
        (["--algo", "gcra", "--algo", "gcra"], ["gcra"]),
        (["--algo", "all"], list(ALGORITHMS)),
        (["--algo", "gcra", "--algo", "all"], ["gcra", *COMPARED]),
    ],
)
def test_algo_says_which_algorithms_in_which_order(options: list[str], algorithms: list[str]) -> None:
    told = json.loads(shown(BURST, "--json", *options))
    assert [result["algorithm"] for result in told["results"]] == algorithms


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--algo", "tokenbucket"], "unknown algorithm 'tokenbucket': did you mean token-bucket?"),
        (["--algo", "x"], "unknown algorithm 'x': choose one of token-bucket, leaky-bucket,"),
        (["--rate", "2"], "rate must look like 2/s, 100/min or 5/2.5s, got '2'"),
        (["--rate", ""], "rate must look like 2/s, 100/min or 5/2.5s, got ''"),
        (["--rate", "1/day", "--burst", "60000"], "lower the burst or raise the rate"),
        (["--burst", str(10**30)], "burst must be a whole number from 1 to 2**62"),
        (["--burst", "1000001"], "sliding-log keeps the time of every admission"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(options: list[str], told: str) -> None:
    assert told in refused(BURST, *options)


@pytest.mark.parametrize("options", [["--burst", "0"], ["--seed", "-1"], ["--burst", "x"], ["--no-such-option"], []])
def test_an_option_of_the_wrong_kind_is_told_with_the_usage(options: list[str]) -> None:
    result = simulate(*([BURST, *options] if options else []))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ratelab simulate [OPTIONS] SCENARIO...")


def test_a_wave_without_a_cycle_is_refused_however_short_it_is(tmp_path: Path) -> None:
    path = tmp_path / "wave.yaml"
    wave = "{pattern: wave, mean: 1/s, amplitude: 1/s, cycle: 0s}"
    path.write_text(f"name: x\nduration: 10us\nquota: {{rate: 1/s}}\nclients: [{{name: a, traffic: [{wave}]}}]\n")
    command = [sys.executable, "-m", "ratelab", "simulate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cycle must be longer" in done.stderr


def test_a_scenario_without_a_request_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "quiet.yaml"
    poisson = "{pattern: poisson, rate: 1/day}"
    path.write_text(f"name: quiet\nduration: 1s\nquota: {{rate: 1/s}}\nclients: [{{name: a, traffic: [{poisson}]}}]\n")
    text = shown(path, "--timeline", "--csv", tmp_path / "t.csv", "--events", tmp_path / "e.jsonl")
    assert "0 requests from 1 client in 1s" in text
    assert "There were no requests, so there is nothing to compare." in text
    assert ((tmp_path / "e.jsonl").read_text(), len((tmp_path / "t.csv").read_text().splitlines())) == ("", 6)


# --- CSV and events


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read a file of events or a table; every value as the JSON would have it."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_table_is_the_json_row_by_row(tmp_path: Path) -> None:
    told = json.loads(shown(BURST, HERD, "--json", "--csv", tmp_path / "table.csv"))
    rows = rows_of(tmp_path / "table.csv")
    assert list(rows[0]) == ["scenario", *FIGURES]
    results = [{"scenario": run["scenario"], **result} for run in told["runs"] for result in run["results"]]
    expected = [{name: "" if result[name] is None else str(result[name]) for name in rows[0]} for result in results]
    assert rows == expected


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_are_each_algorithms_decisions_made_by_hand_in_the_order_of_arrival(tmp_path: Path, name: str) -> None:
    shown(NOISY, "--events", tmp_path / name)
    rows = rows_of(tmp_path / name)
    assert list(rows[0]) == ["at_ns", "client", "cost", "algorithm", *Decision._fields]
    scenario = load_scenario(NOISY)
    kernels = [create(algorithm, scenario.quota) for algorithm in COMPARED]
    states: dict[tuple[str, int], list[int]] = {}
    expected = []
    for at, client in zip(scenario.traffic.times.tolist(), scenario.traffic.clients.tolist(), strict=True):
        for kernel in kernels:
            state = states.setdefault((kernel.name, client), kernel.start(at))
            expected.append((at, scenario.traffic.names[client], 1, kernel.name, *kernel.step(state, at, 1)))
    as_text = name.endswith(".csv")
    assert [tuple(row.values()) for row in rows] == [tuple(map(str, row)) if as_text else row for row in expected]


def test_events_of_several_scenarios_say_whose_they_are(tmp_path: Path) -> None:
    shown(BURST, HERD, "--events", tmp_path / "events.jsonl", "--algo", "gcra")
    rows = rows_of(tmp_path / "events.jsonl")
    assert [row["scenario"] for row in rows] == ["burst"] * 30 + ["thundering-herd"] * 2400


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("--events", "events.txt", "ends in .csv or .jsonl, got "),
        ("--events", "events", "ends in .csv or .jsonl, got "),
        ("--events", "folder.csv", "it is a directory; name a file in it"),
        ("--csv", "folder.csv", "it is a directory; name a file in it"),
        ("--csv", "no/table.csv", "there is no directory "),
        ("--events", "no/events.csv", "there is no directory "),
        ("--csv", "burst.yaml/table.csv", "there is no directory "),
        ("--csv", "x" * 300, "cannot write "),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, name: str, told: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "burst.yaml").write_bytes(Path(BURST).read_bytes())

    def work(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ratelab.lab.scenarios.load_scenario", work)
    assert told in refused(BURST, option, tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["burst.yaml", "folder.csv"]


def test_a_file_without_permission_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    (tmp_path / "table.csv").touch()
    assert "table.csv: permission denied" in refused(BURST, "--csv", tmp_path / "table.csv")


def test_a_table_may_go_to_a_device() -> None:
    text = python("-m", "ratelab", "simulate", BURST, "--algo", "gcra", "--json", "--csv", "/dev/stdout")
    assert text.startswith("scenario,algorithm,")
    assert json.loads(text.splitlines()[-1])["scenario"] == "burst"


def failing(folder: Path) -> str:
    """Write an algorithm that fails at its twentieth request, and return how to name it."""
    (folder / "tired.py").write_text(
        "from ratelab.algorithms.token_bucket import TokenBucket\n\n\n"
        "class Tired(TokenBucket):\n"
        "    name = 'tired'\n\n"
        "    def step(self, state, now, cost):\n"
        "        return 1 // 0 if now > 3_150_000_000 else super().step(state, now, cost)\n"
    )
    return f"{folder / 'tired.py'}:Tired"


def test_a_replay_that_fails_leaves_no_file_and_changes_none(tmp_path: Path) -> None:
    table, events, algorithm = tmp_path / "table.csv", tmp_path / "events.csv", failing(tmp_path)
    events.write_text("precious")
    told = refused(BURST, "--algo", "gcra", "--algo", algorithm, "--csv", table, "--events", events)
    assert "tired failed: ZeroDivisionError" in told
    assert events.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["events.csv", "tired.py"]


def test_writing_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table.csv"
    table.write_text("precious")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("csv.DictWriter.writerows", full)
    assert "No space left on device" in refused(BURST, "--csv", table)
    assert table.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [table]


def test_a_new_file_takes_the_place_of_the_old_and_may_be_read_by_all(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("old")
    shown(BURST, "--csv", table)
    assert len(rows_of(table)) == len(COMPARED)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(table.stat().st_mode) == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [table]


# --- for people


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
@pytest.mark.parametrize("options", [[], ["--algo", "all", "--timeline"]], ids=["table", "all"])
def test_the_table_fits_eighty_columns_without_colour(path: Path, options: list[str]) -> None:
    text = shown(path, *options)
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if len(line) > 80] == []
    named = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert [name for name in (ALGORITHMS if options else COMPARED) if name not in named] == []


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_the_table_begins_with_the_quota_and_ends_with_what_the_run_shows(path: Path) -> None:
    text, scenario = shown(path), load_scenario(str(path))
    assert text.startswith(f"{path.stem}: ")
    told = " ".join(text.split())
    assert re.search(rf"quota for each (client|key): {re.escape(str(scenario.quota))} \(window ", told)
    assert f"{len(scenario.traffic):,} requests from {len(scenario.traffic.names)} client" in told
    closing = " ".join(text.rpartition("\n\n")[2].split())
    assert re.fullmatch(r"[^.]*(let|more than) .* (quota is \d+|kept to it)\. (Of|All) [^.]*(\.\d+[^.]*)*\.", closing)


CLOSING = {
    "steady": "No algorithm let more than 3 through in any 2.5s, where the quota is 5. All 60 requests were admitted.",
    "on-off": "No algorithm let more than 10 through in any 5s, where the quota is 10. Of 120 requests, "
    "sliding-counter denied 55, token-bucket, leaky-bucket, fixed-window and sliding-log none; leaky-bucket made 108 "
    "wait, up to 3.6s.",
    "boundary-burst": "fixed-window let 120 through within 1min where the quota is 60; leaky-bucket, sliding-log and "
    "sliding-counter kept to it. Of 120 requests, sliding-log and sliding-counter denied 60, fixed-window none; "
    "leaky-bucket made 60 wait, up to 59s.",
}


@pytest.mark.parametrize(("stem", "sentences"), CLOSING.items(), ids=CLOSING.keys())
def test_the_closing_sentences_tell_how_the_quota_was_kept_and_at_what_price(stem: str, sentences: str) -> None:
    assert " ".join(shown(SCENARIOS / f"{stem}.yaml").split()).endswith(sentences)


def test_the_best_and_the_worst_are_marked_where_that_means_something() -> None:
    text = shown(BURST)
    assert "* best  ! worst" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["fixed-window"] == ["13", "17", "0", "0", "7", "1.40!", "2", "1!"]
    assert rows["sliding-counter"] == ["11", "19", "0", "0", "4", "0.80", "0*", "1!"]  # no merit in a lower peak
    assert "best" not in shown(SCENARIOS / "steady.yaml")


def test_a_terminal_gets_colour() -> None:
    runner = CliRunner(env={**PLAIN, "FORCE_COLOR": "1", "TERM": "xterm"})
    assert "\x1b[32m" in runner.invoke(ratelab_command, ["simulate", BURST]).stdout


def test_names_that_look_like_markup_are_names(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    text = Path(BURST).read_text(encoding="utf-8")
    path.write_text(text.replace("name: burst", "name: '[bold]odd[/]'").replace("A quiet", "A [red]quiet"))
    assert "[bold]odd[/]: A [red]quiet client that" in shown(path)


def strips(text: str) -> dict[str, str]:
    """Return the cells that the timeline draws for each algorithm."""
    found = (re.fullmatch(r"([a-z-]+) +([.|~+x]{20,})", line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}


def test_a_timeline_is_a_letter_for_each_cell_of_a_common_axis() -> None:
    text = shown(BURST, "--timeline")
    drawn = strips(text)
    assert list(drawn) == list(COMPARED)
    assert {len(strip) for strip in drawn.values()} == {80 - len("sliding-counter ")}
    axis, legend = text.splitlines()[-2:]
    assert re.fullmatch(r" {16}0s +10s", axis)
    assert legend == "| admitted  ~ some delayed  + some denied  x all denied  . no request"


def mark(cell: list[tuple[bool, int]]) -> str:
    """Return the letter for what became of a cell's requests, as (allowed, delay)."""
    denied = [not allowed for allowed, _ in cell]
    if not cell or all(denied):
        return "x" if cell else "."
    return "+" if any(denied) else "~" if any(delay for _, delay in cell) else "|"


def drawn_by_hand(name: str, path: Path, width: int) -> str:
    traffic, kernel = load_scenario(str(path)).traffic, create(name, Quota.parse("2/s", burst=5))
    state, cells = kernel.start(0), [list[tuple[bool, int]]() for _ in range(width)]
    for at in traffic.times.tolist():
        allowed, *_, delay = kernel.step(state, at, 1)
        cells[at * width // traffic.duration].append((allowed, delay))
    return "".join(map(mark, cells))


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-counter"])
def test_a_timeline_shows_each_request_in_its_place_up_to_the_last(tmp_path: Path, name: str) -> None:
    path = tmp_path / "late.yaml"
    path.write_text(f"{Path(BURST).read_text(encoding='utf-8')}      - {{pattern: at, times: [9.999999999s]}}\n")
    assert strips(shown(path, "--timeline"))[name] == drawn_by_hand(name, path, 64)


# --- the program


def test_python_m_ratelab_is_the_program() -> None:
    assert python("-m", "ratelab", "--version") == f"ratelab, version {ratelab.__version__}\n"
    assert python("-m", "ratelab", "simulate", BURST, COLUMNS="80", TERM="dumb") == shown(BURST)


def test_no_progress_bar_is_drawn_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.cli.progress.PATIENCE", -1)
    assert shown(BURST).startswith("burst: ")


HEAVY = "numpy yaml pydantic rich matplotlib"


@pytest.mark.parametrize("run", ["import ratelab", "from ratelab.cli import main; main()"], ids=["import", "help"])
def test_what_a_command_does_not_need_is_not_imported(run: str) -> None:
    told = f"import atexit, sys; atexit.register(lambda: print('found', *{{*{HEAVY.split()!r}}} & {{*sys.modules}}))"
    *_, last = python("-c", f"{told}; sys.argv = ['ratelab', '--help']; {run}").splitlines()
    assert last == "found"


def test_help_names_every_command() -> None:
    text = CliRunner(env=PLAIN).invoke(ratelab_command, ["--help"]).stdout
    assert re.findall(r"^  ([a-z]+) ", text.partition("Commands:")[2], re.MULTILINE) == list(COMMANDS)
