"""Chart of a sweep: the denials under each quota, legible for any sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chart_inspection import LONG_NAME, compare_scenario, find_overlaps, get_axes, read_texts
from cli_runner import BURST, get_error, get_output
from matplotlib.lines import Line2D

from ratelab import Algorithm, Quota
from ratelab.algorithms import COMPARED, find
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.sweep import SweepResult, SweepRow, build_policies, parse_quotas, sweep
from ratelab.report.charts import draw_sweep
from ratelab.report.sweep import describe_sweep


class Other(TokenBucket):
    name = LONG_NAME


ALL = (*map(find, COMPARED), Other)


def sweep_scenario(
    scenario: str, rates: str, bursts: str | None, steps: int = 10, kinds: Sequence[type[Algorithm]] = ALL
) -> SweepResult:
    return sweep(build_policies(kinds, parse_quotas(rates, bursts, steps)), compare_scenario(scenario).traffic)


def create_result(quotas: list[Quota], offered: int) -> SweepResult:
    """Return the result of a sweep in which one client sends this number of requests, and none is denied."""
    rows = tuple(SweepRow("token-bucket", quota, 0, 0.0, 0, 0.0) for quota in quotas)
    return SweepResult(offered, min(1, offered), rows)


def read_lines(axes: Any) -> list[list[float]]:
    """Return the ratios of each line of an algorithm, without that of the goal."""
    return [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]


def test_rows_are_bursts_lines_algorithms_and_columns_ratios() -> None:
    result = sweep_scenario("noisy-neighbour", "1/s..100/s", "5,20", 3)
    figure = draw_sweep(result)
    algorithms = [line for line in get_axes(figure, 0).lines if line.get_marker() == "o"]
    panels = [(ratio, burst) for ratio in ("denied_ratio", "clients_denied_ratio") for burst in (5, 20)]
    for number, (ratio, burst) in enumerate(panels):
        expected = [
            [
                pytest.approx(getattr(row, ratio), abs=1e-6)
                for row in result.rows
                if (row.quota.burst, row.algorithm) == (burst, name)
            ]
            for name in (*COMPARED, Other.name)
        ]
        assert read_lines(get_axes(figure, number)) == expected
    assert list(algorithms[0].get_xdata()) == pytest.approx([0, 0.5, 1])  # by equal factors
    assert {"burst 5", "burst 20", "1/s", "10/s", "100/s", "sliding-counter"} <= {*read_texts(figure)}


SWEEPS = {
    "one quota": ("burst", "2/s", "5", "2/s, burst 5 denied 53.3 to 63.3 % of requests."),
    "one rate": ("burst", "2/s", "1..50", "2/s, burst 32 is the lowest quota tried with which every algorithm denied "),
    "a burst for each rate": ("burst", "1/s,2/s,500/s", None, "500/s, burst 500 is the lowest quota tried with which"),
    "many": ("noisy-neighbour", "10/min..10000/min", "5..5000", "10/min, burst 2,321 is the lowest quota tried with w"),
    "nothing denied": ("steady", "10/s,20/s", "5", "Even 10/s, burst 5 denied no request."),
    "nearly all denied": ("overload", "1/h,2/h", "1", "Even 2/h, burst 1 denied 99.983 % of requests."),
}


@pytest.mark.parametrize(
    ("scenario", "rates", "bursts", "title"),
    [
        pytest.param(*case, id=name, marks=() if name == "one rate" else pytest.mark.slow)
        for name, case in SWEEPS.items()
    ],
)
def test_the_title_names_the_lowest_quota_and_no_texts_overlap(
    scenario: str, rates: str, bursts: str | None, title: str
) -> None:
    figure = draw_sweep(sweep_scenario(scenario, rates, bursts), "dark", LONG_NAME)
    assert str(figure.get_label()).startswith(title)
    assert find_overlaps(figure) == []


@pytest.mark.slow
def test_small_and_large_shares_are_on_one_scale_with_the_goal() -> None:
    shares = [0.5, 0.03, 0.0004, 0]
    quotas = parse_quotas("1/s,10/s,100/s,1000/s", "5", 2)
    rows = tuple(
        SweepRow("gcra", quota, int(share * 10_000), share, 0, 0.0) for quota, share in zip(quotas, shares, strict=True)
    )
    figure = draw_sweep(SweepResult(10_000, 1, rows))
    axes = get_axes(figure, 0)
    heights = [float(axes.transData.transform((0, share))[1]) for share in (0, 1e-4, 1e-3, 1e-2, 1e-1, 1)]
    steps = np.diff(heights)
    assert steps[1:] == pytest.approx([steps[1]] * 4)  # each power of ten has the same height
    assert steps[0] > 0.3 * steps[1]
    assert {"0", "0.01 %", "0.1 %", "goal 1 %", "10 %", "100 %"} <= {*read_texts(figure)}
    goals = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in goals] == [[0.01, 0.01]]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (10, 1000, [f"{rate}/min" for rate in ("10", "20", "50", "100", "200", "500", "1,000")]),
        (3, 90, ["5/min", "10/min", "20/min", "50/min"]),
    ],
)
def test_an_axis_of_many_rates_has_round_numbers(low: int, high: int, labels: list[str]) -> None:
    quotas = parse_quotas(f"{low}/min..{high}/min", "5", 12)
    texts = read_texts(draw_sweep(create_result(quotas, 9)))
    assert [text for text in texts if text.endswith("/min")] == labels


@pytest.mark.slow
def test_names_lead_to_the_ends_of_their_lines() -> None:
    figure: Any = draw_sweep(sweep_scenario("noisy-neighbour", "1/s..100/s", "5", 3))
    axes = get_axes(figure, 0)
    names = {text.get_text(): text.get_position() for text in figure.texts}
    leaders: list[Any] = [line for line in figure.get_children() if isinstance(line, Line2D)]
    for line, leader in zip([line for line in axes.lines if line.get_marker() == "o"], leaders, strict=False):
        assert leader.get_color() in [other.get_color() for other in axes.lines]
        end = figure.transFigure.transform((leader.get_xdata()[0], leader.get_ydata()[0]))
        points = [axes.transData.transform(point) for other in axes.lines for point in other.get_xydata()]
        assert min(abs(point - end).max() for point in points) < 2  # pixels
        assert any(abs(y - leader.get_ydata()[1]) < 1e-6 for _, y in names.values())
        assert line.get_marker() == "o"


def test_the_lowest_quota_follows_from_the_ratios() -> None:
    result = sweep_scenario("noisy-neighbour", "1/s..100/s", "5,10", 8)
    sufficient = [
        quota
        for quota in parse_quotas("1/s..100/s", "5,10", 8)
        if all(row.denied_ratio <= 0.01 for row in result.rows if row.quota == quota)
    ]
    assert describe_sweep(result).startswith(f"{sufficient[0]} is the lowest quota tried")


@pytest.mark.slow
def test_the_quota_in_the_title_has_a_row() -> None:
    figure = draw_sweep(sweep_scenario("noisy-neighbour", "1/s..100/s", "1..40", 12, ALL[:1]))
    named = str(figure.get_label()).split(" is the lowest")[0].split(", ", 1)[1]
    rows = [text for text in read_texts(figure) if text.startswith("burst ")]
    assert named in rows
    assert (len(rows), len({*rows})) == (12, 6)  # side by side, for requests and for clients


@pytest.mark.slow
@pytest.mark.parametrize("rates", ["100/min", "100/min,250/min", "5/s,10/s", "3/day,24/day"])
def test_rates_have_the_unit_in_which_they_were_given(rates: str) -> None:
    figure = draw_sweep(create_result(parse_quotas(rates, "5", 2), 9))
    assert {*rates.split(",")} <= {*read_texts(figure)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["burst", "noisy-neighbour"])
def test_a_narrow_sweep_has_no_overlapping_texts(name: str) -> None:
    figure = draw_sweep(sweep_scenario(name, "1/s..100/s", "5,20", 6), "dark", LONG_NAME, layout="narrow")
    assert find_overlaps(figure) == []


@pytest.mark.slow
@pytest.mark.parametrize("bursts", [None, "5"])
def test_a_narrow_sweep_names_its_bursts_in_full(bursts: str | None) -> None:
    texts = read_texts(draw_sweep(create_result(parse_quotas("10/min..100000/min", bursts, 5), 9), layout="narrow"))
    assert [text for text in texts if text.endswith("\N{HORIZONTAL ELLIPSIS}")] == []
    assert ("burst 5" if bursts else "bursts of 10 to 100,000, by rate") in texts


def test_a_sweep_without_requests_has_a_chart() -> None:
    result = create_result(parse_quotas("1/s,2/s", "5", 2), 0)
    assert draw_sweep(result).get_label() == "There were no requests, so there is nothing to deny."


def test_a_sweep_is_drawn_into_a_file_and_a_folder(tmp_path: Path) -> None:
    command = ("sweep", BURST, "--rate", "1/s,2/s", "--burst", "5", "--algo", "gcra")
    plots = ("--plot", tmp_path / "one.svg", "--plot", f"{tmp_path / 'all'}/", "--theme", "dark")
    assert get_output(*command, *plots) == get_output(*command)
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert "<title>Even 2/s, burst 5 denied 53.3 % of requests.</title>" in text
    assert "<!-- 30 requests from 1 client in 10 s -->" in text
    assert (tmp_path / "all/sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "sweep.gif"], "--plot must be a .png, .svg or .pdf file or a directory"),
        (["--plot", "no/where/"], "there is no directory"),
        (["--theme", "dark"], "--theme needs a chart: add --plot FILE.png"),
        (["--plot", "a.png", "--csv", "a.png"], "a.png would be overwritten: give each output a different file"),
    ],
)
def test_an_invalid_chart_option_is_rejected_before_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ratelab.cli.sweep.load_source", lambda *_: pytest.fail("read"))
    assert message in get_error("sweep", BURST, "--rate", "1/s", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("simulate", BURST), ("replay", BURST, "--rate", "1/s")])
def test_other_commands_name_the_one_that_draws_a_sweep(command: tuple[str, ...]) -> None:
    assert "belongs to another command: ratelab sweep ... --plot" in get_error(
        *command, "--chart", "sweep", "--plot", "a.png"
    )
