"""A verdict is shown as a picture and a table: each request, what is right and what was decided instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from pictures import overlapping, panel, written
from running import invoke, refused

from ratelab import Decision, create
from ratelab.learn.chart import draw_verdict
from ratelab.learn.verdict import Row, Verdict
from ratelab.report.charts import THEMES, rendered
from ratelab.report.charts.palette import THEMES as PAPERS
from ratelab.report.charts.palette import colours

SECOND = 10**9
LEAKY = create("leaky-bucket", "2/s", 5)
ERRING = "def step(self, state, now, cost):\n    return cost < 5, 0, 0, 0, 0\n"


def verdict(*hits: tuple[int, int], words: str = "allowed is False, and should be True", **other: Any) -> Verdict:
    """Return what comes of hits of which the last is decided otherwise by the answer, as `other` says."""
    state = LEAKY.start(0)
    rows = [Row(at, cost, made, made) for at, cost in hits for made in [Decision(*LEAKY.step(state, at, cost))]]
    yours = rows[-1].exact._replace(**other) if other else None
    return Verdict("leaky-bucket", False, words, (), "2/s, burst 5", [*rows[:-1], rows[-1]._replace(yours=yours)])


DENYING = verdict((0, 4), (SECOND // 2, 2), allowed=False, retry_after_ns=7)
LATER = verdict((0, 4), (0, 1), words="delay_ns is 0, and should be 2000000000", delay_ns=0)
RAISING = verdict((0, 0), words="line 2: ZeroDivisionError: division by zero")
FALLEN = verdict((SECOND, 1), (0, 1), allowed=False, retry_after_ns=1)
HIDDEN = verdict((0, 1), words="reset_after_ns is 3, and should be 500000000", reset_after_ns=3)
LONG = verdict(*[(1_700_000_000_123_456_789 + 3 * at, 1 + at % 5) for at in range(18)], retry_after_ns=10**18 + 1)


def blocks(figure: Any, lane: str) -> list[tuple[float, str, float | None]]:
    """Return each block of a lane from left to right: its cost upwards or downwards, and its look."""
    found = [one for one in panel(figure, 0).patches if one.get_label() == lane]
    baselines = sorted({line.get_ydata()[0] for line in panel(figure, 0).lines if len({*line.get_ydata()}) == 1})
    zero = baselines[-2 if lane != "yours" else -1]
    sizes = [zero - one.get_y() if one.get_y() < zero else -one.get_height() for one in found]
    return [
        (round(size, 6), to_hex(one.get_facecolor()), one.get_alpha()) for size, one in zip(sizes, found, strict=True)
    ]


@pytest.mark.parametrize("theme", THEMES)
def test_blocks_are_as_high_as_the_cost_up_if_admitted_light_if_later_and_down_if_denied(theme: str) -> None:
    figure = draw_verdict(DENYING, theme)
    colour, grey = colours(["leaky-bucket"], theme)["leaky-bucket"], PAPERS[theme].denied
    assert blocks(figure, "leaky-bucket") == [(0.3, colour, 1), (0.15, colour, 0.4)]
    assert blocks(figure, "yours") == [(0.3, colour, 1), (-0.15, grey, 0.4)]
    assert figure.get_facecolor() == pytest.approx(
        [int(PAPERS[theme].paper[n : n + 2], 16) / 255 for n in (1, 3, 5)] + [1]
    )


@pytest.mark.parametrize(
    ("shown", "title", "texts"),
    [
        (
            DENYING,
            "Your leaky-bucket denies a request of cost 2 that the exact one admits",
            ["0s", "cost 4", "500ms", "cost 2", "admitted", "leaves after 1.5s", "denied", "wait 7ns"],
        ),
        (LATER, "leaky-bucket, as written: delay_ns is 0, and should be 2000000000", ["leaves after 2s"]),
        (
            RAISING,
            "leaky-bucket, as written: line 2: ZeroDivisionError: division by zero",
            ["cost 0, a look", "no decision", "5 left"],
        ),
        (
            FALLEN,
            "Once time has fallen, your leaky-bucket denies a request of cost 1 that the exact one admits",
            ["1s"],
        ),
        (HIDDEN, "leaky-bucket, as written: reset_after_ns is 3, and should be 500000000", ["new after 3ns"]),
        (LONG, "leaky-bucket, as written: allowed is False, and should be True", ["+0s", "+15ns", "cost 3"]),
    ],
)
def test_the_picture_tells_its_finding_each_request_and_both_decisions(
    shown: Verdict, title: str, texts: list[str]
) -> None:
    figure = draw_verdict(shown)
    assert figure.get_label() == title
    assert {*texts} <= {*written(figure)}
    assert overlapping(figure) == []


def test_the_request_on_which_it_fails_is_framed() -> None:
    for shown in (DENYING, LATER, LONG):
        axes = panel(draw_verdict(shown), 0)
        (frame,) = (one for one in axes.patches if one.get_label() == "fails")
        last = [one for one in axes.patches if one.get_label() == "yours"][-1]
        assert frame.get_x() < last.get_x() < last.get_x() + last.get_width() < frame.get_x() + frame.get_width()
        assert frame.get_height() > 2


def test_a_request_is_led_from_where_it_stands_in_time_to_its_column() -> None:
    ways = [line.get_xdata() for line in panel(draw_verdict(verdict((0, 1), (1, 1), (10, 1), allowed=False)), 0).lines]
    leaders = [way for way in ways if len(way) == 2 and way[1] - way[0] < 2]
    (first, _), (second, column), (last, _) = leaders[:3]
    assert (second - first) / (last - first) == pytest.approx(0.1)
    assert column == pytest.approx((first + last) / 2)


def test_a_verdict_without_a_timeline_is_its_words() -> None:
    assert written(draw_verdict(Verdict("gcra", True, "right"))) == ["gcra, as written: right"]


def test_a_timeline_of_many_requests_is_cut_to_its_last_and_said_so() -> None:
    assert "at 2/s, burst 5, without its first 12 requests" in " ".join(written(draw_verdict(LONG)))


def test_the_picture_is_written_beside_the_table_in_its_theme(tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text(ERRING)
    picture = tmp_path / "picture.svg"
    done = invoke("drill", "gcra", tmp_path / "answer.py", "--plot", picture, "--theme", "dark")
    assert (done.exit_code, "denied" in done.stdout) == (1, True)
    assert "Your gcra denies a request of cost 5 that the exact one admits" in picture.read_text()
    assert PAPERS["dark"].paper in picture.read_text()


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    answer, picture = tmp_path / "answer.py", tmp_path / "picture.png"
    answer.write_text("def step(")
    assert "is not written: there is no timeline to draw" in " ".join(
        invoke("drill", "gcra", answer, "--plot", picture).stdout.split()
    )
    assert not picture.exists()
    assert "name ANSWER.py, too" in refused("drill", "gcra", "--plot", picture)
    assert "a name that ends in .png" in refused("drill", "gcra", answer, "--plot", answer)
    assert "give --plot FILE.png, too" in refused("drill", "gcra", answer, "--theme", "dark")


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_the_same_verdict_is_the_same_bytes(file_format: str) -> None:
    assert rendered(draw_verdict(DENYING), file_format) == rendered(draw_verdict(DENYING), file_format)
