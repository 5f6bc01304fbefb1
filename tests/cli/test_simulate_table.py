"""The table and timeline of `ratelab simulate`: plain text for people, eighty columns wide."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runner import BURST, PLAIN, SCENARIOS, get_output, run_python
from click.testing import CliRunner
from rich.cells import cell_len

from ratelab import ALGORITHMS, Quota, create
from ratelab.algorithms import COMPARED
from ratelab.cli import ratelab_command
from ratelab.lab.scenarios import load_scenario
from ratelab.report.summary import seconds
from ratelab.report.tables import TABLE_COLUMNS

EVERY = sorted(SCENARIOS.glob("*.yaml"))


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
@pytest.mark.parametrize("options", [[], ["--algo", "all", "--timeline"]], ids=["table", "all"])
def test_the_table_fits_eighty_columns_without_colour(path: Path, options: list[str]) -> None:
    text = get_output("simulate", path, *options)
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if len(line) > 80] == []
    named = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert [name for name in (ALGORITHMS if options else COMPARED) if name not in named] == []


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_the_table_begins_with_the_quota_and_ends_with_what_the_run_shows(path: Path) -> None:
    text, scenario = get_output("simulate", path), load_scenario(str(path))
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
    assert " ".join(get_output("simulate", SCENARIOS / f"{stem}.yaml").split()).endswith(sentences)


def test_the_best_and_the_worst_are_marked_where_that_means_something() -> None:
    text = get_output("simulate", BURST)
    assert "* best  ! worst" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["fixed-window"] == ["13", "17", "0", "0", "7", "1.40!", "2", "1!"]
    assert rows["sliding-counter"] == ["11", "19", "0", "0", "4", "0.80", "0*", "1!"]  # no merit in a lower peak
    assert "best" not in get_output("simulate", SCENARIOS / "steady.yaml")


def test_a_terminal_gets_colour() -> None:
    runner = CliRunner(env={**PLAIN, "FORCE_COLOR": "1", "TERM": "xterm"})
    assert "\x1b[32m" in runner.invoke(ratelab_command, ["simulate", BURST]).stdout


def test_names_that_look_like_markup_are_names(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    text = Path(BURST).read_text(encoding="utf-8")
    path.write_text(text.replace("name: burst", "name: '[bold]odd[/]'").replace("A quiet", "A [red]quiet"))
    assert "[bold]odd[/]: A [red]quiet client that" in get_output("simulate", path)


@pytest.mark.parametrize("algorithms", [COMPARED, tuple(ALGORITHMS)])
def test_long_names_give_way_and_numbers_never_do(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    clients = "".join(
        f"  - {{name: {name}, traffic: [{{pattern: burst, at: 1s, size: 4321}}]}}\n" for name in ("名" * 99, "b" * 99)
    )
    path = tmp_path / "long.yaml"
    path.write_text(f"name: long\nduration: 5s\nquota: {{rate: 1/s, burst: 5}}\nclients:\n{clients}", encoding="utf-8")
    trace, chosen = tmp_path / "long.jsonl", [part for name in algorithms for part in ("--algo", name)]
    get_output("simulate", path, "--algo", "gcra", "--events", trace)
    options = ["--key", "client", "--time", "at_ns", "--time-unit", "ns", "--rate", "1/s", "--burst", "5", "--accuracy"]
    text = get_output("replay", trace, *options, *chosen)
    assert max(map(cell_len, text.splitlines())) <= 80
    rows = [re.findall(r"[+-]?[\d,]+", line) for line in text.splitlines() if "…" in line]
    assert [row.count("4,316") for row in rows].count(len(algorithms)) == 2


def strips(text: str) -> dict[str, str]:
    """Return the cells that the timeline draws for each algorithm."""
    found = (re.fullmatch(r"([a-z-]+) +([.|~+x]{20,})", line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}


def test_a_timeline_is_a_letter_for_each_cell_of_a_common_axis() -> None:
    text = get_output("simulate", BURST, "--timeline")
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
    assert strips(get_output("simulate", path, "--timeline"))[name] == drawn_by_hand(name, path, 64)


def test_a_narrow_terminal_loses_no_column() -> None:
    assert run_python("-m", "ratelab", "simulate", BURST, COLUMNS="40") == run_python(
        "-m", "ratelab", "simulate", BURST
    )


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 9_999, 999_999], ["0", "9,999", "999,999"]),
        ([0, 9_999, 12_345, 999_999, 10_000_000], ["0", "9,999", "0.012M", "1.000M", "10.000M"]),
    ],
)
def test_counts_of_one_column_are_written_in_one_way(values: list[int], texts: list[str]) -> None:
    assert [TABLE_COLUMNS[0].show(value, max(values)) for value in values] == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (4.9e-7, "490ns"), (0.0098, "9.8ms"), (0.2, "0.2s"), (1.97, "1.97s"), (59.4, "59s"), (7200, "2h")],
)
def test_seconds_are_told_as_people_say_them(value: float, text: str) -> None:
    assert seconds(value) == text
