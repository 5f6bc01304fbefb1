"""`--plot`, `--chart` and `--theme`: the files they write, and targets that are rejected before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_output, invoke

from ratelab.report.charts import CHARTS

HERD = str(SCENARIOS / "thundering-herd.yaml")
SIGNATURES = {"png": b"\x89PNG\r\n", "svg": b"<?xml ", "pdf": b"%PDF-"}


@pytest.fixture
def draw_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, str]]:
    """Draw nothing; return the chart, theme, caption and layout of each call."""
    calls: list[tuple[str, str, str, str]] = []
    monkeypatch.setattr("ratelab.cli.artifacts.draw", lambda _, *arguments: calls.append(arguments))
    monkeypatch.setattr("ratelab.cli.artifacts.render_figure", lambda _, file_format: file_format.encode())
    return calls


@pytest.mark.slow
def test_a_suffix_selects_the_image_format(tmp_path: Path) -> None:
    paths = {file_format: tmp_path / f"chart.{file_format.upper()}" for file_format in SIGNATURES}
    options = [part for path in paths.values() for part in ("--plot", path)]
    assert get_output("simulate", BURST, "--chart", "outcome", *options) == get_output("simulate", BURST)
    for file_format, path in paths.items():
        assert path.read_bytes().startswith(SIGNATURES[file_format])


def test_a_replay_is_drawn_like_a_scenario(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("at,who\n" + "".join(f"{at},alice\n" for at in range(9)))
    options = ["--rate", "1/2s", "--time", "at", "--key", "who", "--chart", "outcome"]
    get_output("replay", tmp_path / "trace.csv", *options, "--plot", tmp_path / "chart.svg")
    assert "<title>Of 9 requests, " in (tmp_path / "chart.svg").read_text(encoding="utf-8")


def test_a_file_gets_the_comparison_and_a_directory_every_chart(
    tmp_path: Path, draw_calls: list[tuple[str, str, str, str]]
) -> None:
    get_output("simulate", BURST, "--plot", tmp_path / "one.svg", "--plot", f"{tmp_path / 'all'}/", "--theme", "dark")
    caption = "burst: A quiet client that suddenly sends twenty requests at once."
    assert draw_calls == [(chart, "dark", caption, "wide") for chart in ("comparison", *CHARTS)]
    assert (tmp_path / "one.svg").read_text() == "svg"
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(f"{chart}.png" for chart in CHARTS)


def test_charts_of_several_scenarios_have_unique_names(
    tmp_path: Path, draw_calls: list[tuple[str, str, str, str]]
) -> None:
    odd = tmp_path / "odd.yaml"
    odd.write_text(Path(BURST).read_text(encoding="utf-8").replace("name: burst", f"name: ../{'x' * 300}/"))
    get_output("simulate", BURST, BURST, odd, "--chart", "window", "--chart", "level", "--plot", tmp_path, "--json")
    runs = ["burst", "burst~2", "x" * 57]
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        f"{run}-{chart}" for run in runs for chart in ("window", "level")
    }
    assert len(draw_calls) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "chart.gif"], "--plot must be a .png, .svg or .pdf file or a directory, got 'chart.gif'"),
        (["--plot", "chart"], "--plot must be a .png, .svg or .pdf file or a directory, got 'chart'"),
        (["--plot", "no/chart.png"], "cannot write no/chart.png: there is no directory no"),
        (["--plot", "no/charts/"], "cannot write no/charts: there is no directory no"),
        (
            ["--plot", "in.svg/"],
            "cannot write into in.svg/: in.svg is not a directory; for a file, leave out",
        ),
        (["--plot", "gone/"], "cannot write into gone/: gone is not a directory; for a file"),
        (["--plot", ""], "--plot must be a .png, .svg or .pdf file or a directory, got ''"),
        (["--plot", "file.png/chart.png/"], "cannot write file.png/chart.png: there is no directory"),
        (["--chart", "level"], "--chart needs a file for the chart: add --plot FILE.png"),
        (["--layout", "narrow"], "--layout needs a chart: add --plot FILE.png (a page of --html has both layouts)"),
        (["--theme", "dark"], "--theme needs a chart: add --plot FILE.png (a page of --html has both themes)"),
        (["--plot", "a.png", "--chart", "level", "--chart", "window"], "a.png cannot hold 2 charts: give --plot a dir"),
        (["--plot", "a.png", "--plot", "./a.png"], "./a.png would be overwritten: give each output a different file"),
        (["--plot", "in.svg"], "in.svg would be overwritten: give each output a different file"),
    ],
)
def test_an_invalid_target_is_rejected_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ratelab.cli.simulate.load_variants", lambda *_: pytest.fail("loaded a scenario"))
    Path("file.png").touch()
    Path("gone").symlink_to("nowhere")
    Path("in.svg").write_bytes(Path(BURST).read_bytes())
    assert message in get_error("simulate", "in.svg", *options)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file.png", "gone", "in.svg"]


def test_one_file_for_several_scenarios_is_rejected(tmp_path: Path) -> None:
    assert "a.png cannot hold 2 scenarios: give --plot a directory" in get_error(
        "simulate", BURST, HERD, "--plot", tmp_path / "a.png"
    )


def test_a_failed_drawing_leaves_the_old_file_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chart.png"
    path.write_text("precious")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ratelab.cli.artifacts.draw", fail)
    assert isinstance(invoke("simulate", BURST, "--plot", path).exception, MemoryError)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
