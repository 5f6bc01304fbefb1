"""Chart of a verdict: the requests of the failing timeline, with both decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chart_inspection import find_overlaps, get_axes, read_texts
from cli_runner import get_error, invoke
from matplotlib.colors import to_hex

from ratelab import Decision, create
from ratelab.learn.chart import draw_verdict
from ratelab.learn.verdict import GradedRequest, Verdict
from ratelab.report.charts import THEME_NAMES, render_figure
from ratelab.report.charts.style import THEMES, assign_colors

SECOND = 10**9
LEAKY = create("leaky-bucket", "2/s", 5)
WRONG = "def step(self, state, now, cost):\n    return cost < 5, 0, 0, 0, 0\n"


def verdict(*hits: tuple[int, int], message: str = "allowed must be True, got False", **fields: Any) -> Verdict:
    """Return a verdict on hits of which the last gets a decision with other `fields`, or an error without any."""
    state = LEAKY.start(0)
    requests = []
    for at, cost in hits:
        exact = Decision(*LEAKY.step(state, at, cost))
        requests.append(GradedRequest(at, cost, exact, exact))
    yours = requests[-1].exact._replace(**fields) if fields else None
    requests[-1] = requests[-1]._replace(yours=yours)
    return Verdict("leaky-bucket", False, message, (), "2/s, burst 5", requests)


DENYING = verdict((0, 4), (SECOND // 2, 2), allowed=False, retry_after_ns=7)
UNDELAYED = verdict((0, 4), (0, 1), message="delay_ns must be 2000000000, got 0", delay_ns=0)
RAISING = verdict((0, 0), message="line 2: ZeroDivisionError: division by zero")
STEPPED_BACK = verdict((SECOND, 1), (0, 1), allowed=False, retry_after_ns=1)
HIDDEN = verdict((0, 1), message="reset_after_ns must be 500000000, got 3", reset_after_ns=3)
LONG = verdict(*[(1_700_000_000_123_456_789 + 3 * at, 1 + at % 5) for at in range(18)], retry_after_ns=10**18 + 1)


def blocks(figure: Any, lane: str) -> list[tuple[float, str, float | None]]:
    """Return each block of a lane from left to right: signed height, color and opacity."""
    found = [one for one in get_axes(figure, 0).patches if one.get_label() == lane]
    baselines = sorted({line.get_ydata()[0] for line in get_axes(figure, 0).lines if len({*line.get_ydata()}) == 1})
    zero = baselines[-2 if lane != "yours" else -1]
    sizes = [zero - one.get_y() if one.get_y() < zero else -one.get_height() for one in found]
    return [
        (round(size, 6), to_hex(one.get_facecolor()), one.get_alpha()) for size, one in zip(sizes, found, strict=True)
    ]


@pytest.mark.parametrize("theme", THEME_NAMES)
def test_blocks_show_cost_by_height_denial_by_direction_delay_by_opacity(theme: str) -> None:
    figure = draw_verdict(DENYING, theme)
    color, gray = assign_colors(["leaky-bucket"], theme)["leaky-bucket"], THEMES[theme].denied
    assert blocks(figure, "leaky-bucket") == [(0.3, color, 1), (0.15, color, 0.4)]
    assert blocks(figure, "yours") == [(0.3, color, 1), (-0.15, gray, 0.4)]
    assert figure.get_facecolor() == pytest.approx(
        [int(THEMES[theme].paper[n : n + 2], 16) / 255 for n in (1, 3, 5)] + [1]
    )


@pytest.mark.parametrize(
    ("shown", "title", "texts"),
    [
        (
            DENYING,
            "Your leaky-bucket denies a request of cost 2 that the exact one admits",
            ["0s", "cost 4", "500ms", "cost 2", "admitted", "leaves after 1.5s", "denied", "wait 7ns"],
        ),
        (UNDELAYED, "Your leaky-bucket: delay_ns must be 2000000000, got 0", ["leaves after 2s"]),
        (
            RAISING,
            "Your leaky-bucket: line 2: ZeroDivisionError: division by zero",
            ["cost 0, a look", "no decision", "5 left"],
        ),
        (
            STEPPED_BACK,
            "After the clock steps back, your leaky-bucket denies a request of cost 1 that the exact one admits",
            ["1s"],
        ),
        (HIDDEN, "Your leaky-bucket: reset_after_ns must be 500000000, got 3", ["reset after 3ns"]),
        (LONG, "Your leaky-bucket: allowed must be True, got False", ["+0s", "+15ns", "cost 3"]),
    ],
)
def test_the_chart_shows_its_finding_each_request_and_both_decisions(
    shown: Verdict, title: str, texts: list[str]
) -> None:
    figure = draw_verdict(shown)
    assert figure.get_label() == title
    assert {*texts} <= {*read_texts(figure)}
    assert find_overlaps(figure) == []


@pytest.mark.slow
def test_the_failing_request_is_framed() -> None:
    for shown in (DENYING, UNDELAYED, LONG):
        axes = get_axes(draw_verdict(shown), 0)
        (frame,) = (one for one in axes.patches if one.get_label() == "fails")
        last = [one for one in axes.patches if one.get_label() == "yours"][-1]
        assert frame.get_x() < last.get_x() < last.get_x() + last.get_width() < frame.get_x() + frame.get_width()
        assert frame.get_height() > 2


@pytest.mark.slow
def test_a_line_leads_from_a_request_on_the_time_axis_to_its_column() -> None:
    figure = draw_verdict(verdict((0, 1), (1, 1), (10, 1), allowed=False))
    lines = [line.get_xdata() for line in get_axes(figure, 0).lines]
    leaders = [line for line in lines if len(line) == 2 and line[1] - line[0] < 2]
    (first, _), (second, column), (last, _) = leaders[:3]
    assert (second - first) / (last - first) == pytest.approx(0.1)
    assert column == pytest.approx((first + last) / 2)


def test_a_verdict_without_a_timeline_is_drawn_as_its_message() -> None:
    assert read_texts(draw_verdict(Verdict("gcra", True, "correct"))) == ["Your gcra: correct"]


@pytest.mark.slow
def test_a_long_timeline_is_cut_to_its_last_requests_as_the_caption_states() -> None:
    assert "at 2/s, burst 5, without its first 12 requests" in " ".join(read_texts(draw_verdict(LONG)))


def test_the_chart_is_written_in_its_theme_and_the_table_printed(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text(WRONG)
    picture = tmp_path / "picture.svg"
    result = invoke("drill", "gcra", tmp_path / "answer.py", "--plot", picture, "--theme", "dark")
    assert (result.exit_code, "denied" in result.stdout) == (1, True)
    assert "Your gcra denies a request of cost 5 that the exact one admits" in picture.read_text()
    assert THEMES["dark"].paper in picture.read_text()


def test_a_chart_that_cannot_be_drawn_has_a_message(tmp_path: Path) -> None:
    answer, picture = tmp_path / "answer.py", tmp_path / "picture.png"
    answer.write_text("def step(")
    output = invoke("drill", "gcra", answer, "--plot", picture).stdout
    assert "picture.png:notimelinetodraw" in "".join(output.split())  # the path may be wrapped anywhere
    assert not picture.exists()
    assert "name ANSWER.py, too" in get_error("drill", "gcra", "--plot", picture)
    assert "--plot must be a .png, .svg or .pdf file" in get_error("drill", "gcra", answer, "--plot", answer)
    assert "--theme needs a chart: add --plot FILE.png" in get_error("drill", "gcra", answer, "--theme", "dark")


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_the_same_verdict_is_drawn_as_the_same_bytes(file_format: str) -> None:
    assert render_figure(draw_verdict(DENYING), file_format) == render_figure(draw_verdict(DENYING), file_format)
