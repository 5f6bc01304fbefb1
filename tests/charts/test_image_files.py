"""A picture is the same bytes for the same run, in letters that there are, and never large."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from chart_inspection import compared, drawn, odd

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import DECISION
from ratelab.lab.metrics import measure
from ratelab.lab.traffic import Traffic
from ratelab.report.charts import draw, render_figure, text


def test_letters_that_no_font_has_are_written_as_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_font_with", lambda letter: None)
    assert text.legible("Ирина, tab\there: 用🙂 €") == "Ирина, tab here: \\u7528\\U0001f642 €"


def test_a_line_never_ends_between_a_number_and_its_percent_sign() -> None:
    pen = text.Pen(9)
    lines = pen.broken("nothing left for 33 % of the time", pen.width("nothing left for 33 "), 5)
    assert lines == ["nothing left for", "33 % of the time"]


def test_letters_of_another_font_are_taken_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_font_with", {"用": "Fancy", "户": "Fancy", "🙂": "Smiles"}.get)
    assert text.legible("用户🙂") == "用户🙂"
    assert text.Pen(9).font("a用户🙂").get_family() == [text.FONT, "Fancy", "Smiles"]


def test_the_font_of_last_resort_which_has_a_box_for_every_letter_is_never_taken() -> None:
    assert [name for name, _ in text._installed() if "resort" in name.lower()] == []


@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_the_same_picture_is_the_same_bytes_whatever_a_persons_own_settings(file_format: str) -> None:
    first = render_figure(draw(compared("burst"), "cumulative"), file_format)
    with matplotlib.rc_context(
        {"font.family": "monospace", "svg.hashsalt": None, "axes.grid": True, "savefig.dpi": 10}
    ):
        assert render_figure(draw(compared("burst"), "cumulative"), file_format) == first
    assert b"dc:date" not in first
    assert b"CreationDate" not in first


def test_a_file_says_in_words_what_it_shows() -> None:
    picture = render_figure(drawn("outcome", "boundary-burst"), "svg").decode()
    assert "<title>Of 120 requests, sliding-log and" in picture


def many_requests(clients: int) -> Comparison:
    """Return 30,000 decisions without rhyme or reason, on as many clients as asked for."""
    few, bits, count = odd("one"), np.random.default_rng(1), 30_000
    names, who = tuple(map(str, range(clients))), bits.integers(0, clients, count)
    times = np.sort(bits.integers(0, 3600 * 10**9, count))
    traffic = Traffic(times, who, np.ones(count, np.int64), names, np.arange(clients), 3600 * 10**9)
    made = np.zeros(count, DECISION)
    made["allowed"], made["delay_ns"] = bits.random(count) < 0.5, bits.integers(0, 10**9, count)
    made["delay_ns"][~made["allowed"]] = 0
    made["remaining"] = bits.integers(0, 5, count)
    results = tuple(measure(one, few.quota, traffic, made, None) for one in few.algorithms)
    return Comparison(
        few.quota, traffic, results, {one.name: made for one in few.algorithms}, algorithms=few.algorithms
    )


@pytest.mark.parametrize(("chart", "clients"), [("comparison", 1), ("level", 1), ("fairness", 10_000)])
def test_a_picture_of_very_many_is_no_larger_for_it(chart: str, clients: int) -> None:
    assert len(render_figure(draw(many_requests(clients), chart), "svg")) < 700_000
