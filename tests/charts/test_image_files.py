"""Image files: the same bytes for the same run, characters that a font has, and a limited size."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from chart_inspection import compare_scenario, compare_unusual, draw_scenario

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Columns, Outcome
from ratelab.lab.metrics import measure
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.report.charts import draw, render_figure, text


def test_characters_without_a_font_are_written_as_code_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_find_font", lambda character: None)
    assert text.make_legible("Ирина, tab\there: 用🙂 €") == "Ирина, tab here: \\u7528\\U0001f642 €"


def test_a_line_never_ends_between_a_number_and_its_percent_sign() -> None:
    pen = text.Pen(9)
    lines = pen.wrap("nothing left for 33 % of the time", pen.measure("nothing left for 33 "), 5)
    assert lines == ["nothing left for", "33 % of the time"]


def test_characters_are_drawn_in_the_font_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_find_font", {"用": "Fancy", "户": "Fancy", "🙂": "Smiles"}.get)
    assert text.make_legible("用户🙂") == "用户🙂"
    assert text.Pen(9).select_font("a用户🙂").get_family() == [text.FONT, "Fancy", "Smiles"]


def test_the_last_resort_font_of_empty_boxes_is_not_used() -> None:
    assert [name for name, _ in text._list_fonts() if "resort" in name.lower()] == []


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["png", "svg", "pdf"])
def test_the_bytes_do_not_depend_on_the_users_settings(file_format: str) -> None:
    first = render_figure(draw(compare_scenario("burst"), "cumulative"), file_format)
    with matplotlib.rc_context(
        {"font.family": "monospace", "svg.hashsalt": None, "axes.grid": True, "savefig.dpi": 10}
    ):
        assert render_figure(draw(compare_scenario("burst"), "cumulative"), file_format) == first
    assert b"dc:date" not in first
    assert b"CreationDate" not in first


def test_an_svg_file_has_the_finding_as_title() -> None:
    picture = render_figure(draw_scenario("outcome", "boundary-burst"), "svg").decode()
    assert "<title>Of 120 requests, sliding-log and" in picture


def decide_at_random(clients: int) -> Comparison:
    """Return 30,000 random decisions on this number of clients."""
    base, random, count = compare_unusual("one"), np.random.default_rng(1), 30_000
    names, senders = tuple(map(str, range(clients))), random.integers(0, clients, count)
    times = np.sort(random.integers(0, 3600 * 10**9, count))
    traffic = Traffic(times, senders, np.ones(count, np.int64), names, np.arange(clients), 3600 * 10**9)
    allowed, delays = random.random(count) < 0.5, random.integers(0, 10**9, count)
    columns: Columns = {**dict.fromkeys(ROW_FIELDS, np.zeros(count, np.int64)), "allowed": allowed}
    columns |= {"delay_ns": np.where(allowed, delays, 0), "remaining": random.integers(0, 5, count)}
    outcomes = tuple(Outcome(outcome.policy, traffic, columns) for outcome in base.outcomes)
    return Comparison(traffic, outcomes, None, tuple(measure(outcome, None) for outcome in outcomes))


@pytest.mark.slow
@pytest.mark.parametrize(("chart", "clients"), [("comparison", 1), ("level", 1), ("fairness", 10_000)])
def test_the_size_of_a_file_is_limited_for_many_requests(chart: str, clients: int) -> None:
    comparison = decide_at_random(clients)
    assert len(render_figure(draw(comparison, chart), "svg")) < 115_000 * len(comparison.outcomes)
