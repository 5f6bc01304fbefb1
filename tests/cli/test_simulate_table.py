"""Table and timeline of `ratelab simulate`: plain text that fits eighty columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runner import BURST, PLAIN, QUOTA_SCENARIOS, SCENARIOS, get_error, get_output, run_python
from click.testing import CliRunner
from rich.cells import cell_len
from slow_parameters import mark_slow

from ratelab import ALGORITHMS, Quota, create
from ratelab.algorithms import COMPARED
from ratelab.cli import ratelab_command
from ratelab.lab.metrics import Result, list_figures
from ratelab.lab.scenarios import load_scenario
from ratelab.report.numbers import format_quota, format_seconds


@pytest.mark.parametrize("path", mark_slow(QUOTA_SCENARIOS, QUOTA_SCENARIOS[:2]), ids=lambda path: path.stem)
@pytest.mark.parametrize("options", [[], ["--algo", "all", "--timeline"]], ids=["table", "all"])
def test_the_output_fits_eighty_columns_without_color(path: Path, options: list[str]) -> None:
    text = get_output("simulate", path, *options)
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if len(line) > 80] == []
    first_words = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {*(ALGORITHMS if options else COMPARED)} <= first_words


@pytest.mark.parametrize("path", QUOTA_SCENARIOS, ids=lambda path: path.stem)
def test_the_output_starts_with_the_quota_and_ends_with_findings(path: Path) -> None:
    text, scenario = get_output("simulate", path), load_scenario(str(path))
    assert text.startswith(f"{path.stem}: ")
    words = " ".join(text.split())
    assert re.search(
        rf"quota for each (client|key): {re.escape(format_quota(scenario.open_loop_quota))} \(window ", words
    )
    assert f"{len(scenario.traffic):,} requests from {len(scenario.traffic.names)} client" in words
    findings = " ".join(text.rpartition("\n\n")[2].split())
    kept = r"No algorithm let more than \d+ through in any window of [\d.]+ \w+; the quota is \d+\."
    exceeded = r"\S.* let \d+ through in a window of [\d.]+ \w+.*, above the quota of \d+(; .* stayed within it)?\."
    fullest = r"( The fullest window is that of .*\.)?"
    assert re.fullmatch(rf"({kept}|{exceeded}){fullest} (Of|All) [^.]*(\.\d+[^.]*)*\.", findings)


FINDINGS = {
    "steady": "No algorithm let more than 3 through in any window of 2.5 s; the quota is 5. "
    "All 60 requests were admitted.",
    "on-off": "No algorithm let more than 10 through in any window of 5 s; the quota is 10. Of 120 requests, "
    "sliding-counter denied 55 (45.8 %), token-bucket, leaky-bucket, fixed-window and sliding-log none; leaky-bucket "
    "delayed 108 by up to 3.6 s.",
    "boundary-burst": "fixed-window let 120 through in a window of 1 min and token-bucket 61, above the quota of 60; "
    "leaky-bucket, sliding-log and sliding-counter stayed within it. Of 120 requests, sliding-log and sliding-counter "
    "denied 60 (50 %), token-bucket and leaky-bucket 59 (49.2 %), fixed-window none; leaky-bucket delayed 60 by up to "
    "59 s, 50 of them beyond the client timeout of 10 s.",
}


@pytest.mark.parametrize(("stem", "sentences"), FINDINGS.items(), ids=FINDINGS.keys())
def test_findings_name_the_fullest_window_and_the_denials(stem: str, sentences: str) -> None:
    assert " ".join(get_output("simulate", SCENARIOS / f"{stem}.yaml").split()).endswith(sentences)


def test_figures_above_the_quota_or_the_client_timeout_are_marked() -> None:
    text = get_output("simulate", BURST)
    assert "! above the quota of 5 in any 2.5 s" in text
    table = text.partition("\n\n")[2].partition("\n\n")[0]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["fixed-window"] == ["13", "0", "17", "(56.7", "%)", "7!", "0"]
    assert rows["sliding-counter"] == ["11", "0", "19", "(63.3", "%)", "4", "0"]
    assert "!" not in get_output("simulate", SCENARIOS / "steady.yaml")
    waits = get_output("simulate", SCENARIOS / "boundary-burst.yaml", "--client-timeout", "20s")
    assert "! above the quota of 60 in any 1 min, or longer than the client timeout of 20 s" in waits
    assert re.search(r"^leaky-bucket .* 59 s!$", waits, re.MULTILINE)


def test_all_figures_are_printed_on_request_with_their_meanings() -> None:
    text = get_output("simulate", BURST, "--all-figures").partition("All figures")[2]
    assert "* best  ! worst" in text
    for name, figure in list_figures(Result).items():
        row = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        assert len(row) <= 80
        assert f"{name}: {figure.meaning}" in " ".join(text.split())


@pytest.mark.parametrize("value", ["10", "soon", "-1s"])
def test_a_client_timeout_is_a_duration(value: str) -> None:
    assert "--client-timeout: " in get_error("simulate", BURST, f"--client-timeout={value}")


def test_a_terminal_gets_colors() -> None:
    runner = CliRunner(env={**PLAIN, "FORCE_COLOR": "1", "TERM": "xterm"})
    assert "\x1b[31m" in runner.invoke(ratelab_command, ["simulate", BURST]).stdout


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    text = Path(BURST).read_text(encoding="utf-8")
    path.write_text(text.replace("name: burst", "name: '[bold]odd[/]'").replace("A quiet", "A [red]quiet"))
    assert "[bold]odd[/]: A [red]quiet client that" in get_output("simulate", path)


@pytest.mark.slow
@pytest.mark.parametrize("algorithms", [COMPARED, (*COMPARED, "gcra")])
def test_long_names_are_cut_and_numbers_are_not(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    clients = "".join(
        f"  - {{name: {name}, traffic: [{{pattern: burst, at: 1s, size: 4321}}]}}\n" for name in ("名" * 99, "b" * 99)
    )
    path = tmp_path / "long.yaml"
    path.write_text(f"name: long\nduration: 5s\nquota: {{rate: 1/s, burst: 5}}\nclients:\n{clients}", encoding="utf-8")
    trace, selection = tmp_path / "long.jsonl", [part for name in algorithms for part in ("--algo", name)]
    get_output("simulate", path, "--algo", "gcra", "--events", trace)
    options = ["--key", "client", "--time", "at_ns", "--time-unit", "ns", "--rate", "1/s", "--burst", "5", "--accuracy"]
    text = get_output("replay", trace, *options, *selection)
    assert max(map(cell_len, text.splitlines())) <= 80
    rows = [re.findall(r"[+-]?[\d,]+", line) for line in text.splitlines() if "…" in line]
    assert [row.count("4,316") for row in rows].count(len(algorithms)) == 2


def find_letters(text: str) -> dict[str, str]:
    """Return the letters of the timeline for each algorithm."""
    matches = (re.fullmatch(r"([a-z-]+) +([.|~+x]{20,})", line) for line in text.splitlines())
    return {match[1]: match[2] for match in matches if match}


def test_a_timeline_has_a_letter_for_each_part_of_a_common_axis() -> None:
    text = get_output("simulate", BURST, "--timeline")
    letters = find_letters(text)
    assert list(letters) == list(COMPARED)
    assert {len(line) for line in letters.values()} == {80 - len("sliding-counter ")}
    axis, legend = text.splitlines()[-2:]
    assert re.fullmatch(r" {16}0 s +10 s", axis)
    assert legend == "| admitted  ~ some delayed  + some denied  x all denied  . no request"


def test_no_line_of_the_legend_ends_within_a_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PLAIN, "COLUMNS", "60")
    lines = get_output("simulate", BURST, "--timeline").splitlines()
    assert lines[-2:] == ["| admitted  ~ some delayed  + some denied  x all denied", ". no request"]


def choose_letter(cell: list[tuple[bool, int]]) -> str:
    """Return the letter for the decisions of some requests, given as (allowed, delay)."""
    denied = [not allowed for allowed, _ in cell]
    if not cell or all(denied):
        return "x" if cell else "."
    return "+" if any(denied) else "~" if any(delay for _, delay in cell) else "|"


def draw_letters(name: str, path: Path, width: int) -> str:
    """Return the letters for an algorithm, from decisions made one by one."""
    traffic, kernel = load_scenario(str(path)).traffic, create(name, Quota.parse("2/s", burst=5))
    state, cells = kernel.start(0), [list[tuple[bool, int]]() for _ in range(width)]
    for at in traffic.times.tolist():
        allowed, *_, delay = kernel.step(state, at, 1)
        cells[at * width // traffic.duration].append((allowed, delay))
    return "".join(map(choose_letter, cells))


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-counter"])
def test_a_timeline_shows_every_request_at_its_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / "late.yaml"
    path.write_text(f"{Path(BURST).read_text(encoding='utf-8')}      - {{pattern: at, times: [9.999999999s]}}\n")
    assert find_letters(get_output("simulate", path, "--timeline"))[name] == draw_letters(name, path, 64)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 97, 120, 200])
def test_the_output_has_the_width_of_the_terminal(columns: int) -> None:
    path = str(SCENARIOS / "noisy-neighbour.yaml")
    options = ("--accuracy", "--all-figures", "--equalize", "peak", "--timeline")
    lines = run_python("-m", "ratelab", "simulate", path, *options, COLUMNS=str(columns)).splitlines()
    assert max(len(line) for line in lines if "https://" not in line) <= columns
    cells = r" +([\d.,+>x%!(): -]|ms|min|s|h|noisy)+"
    tables = [[line for line in lines if re.fullmatch(name + cells, line)] for name in COMPARED]
    assert len({len(rows) for rows in tables if len(rows) > 2}) == 1  # no row is broken
    if columns >= 120:
        assert any(line.split("  ")[0] == "client" and "sliding-counter" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (4.9e-7, "490 ns"),
        (0.0098, "9.8 ms"),
        (0.2, "200 ms"),
        (1.97, "1.97 s"),
        (59.4, "59.4 s"),
        (7200, "2 h"),
    ],
)
def test_seconds_have_a_readable_unit(value: float, text: str) -> None:
    assert format_seconds(value) == text
