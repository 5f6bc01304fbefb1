"""Charts of clients: how fairly each is served, and when it is denied."""

from __future__ import annotations

import numpy as np
import pytest
from chart_inspection import (
    compare_dated,
    compare_scenario,
    compare_unusual,
    draw_scenario,
    find_overlaps,
    get_axes,
    read_texts,
)

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import measure
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.report.charts import draw


def test_the_fairness_chart_has_a_bar_per_client_most_denied_first() -> None:
    figure, results = draw_scenario("fairness", "noisy-neighbour"), compare_scenario("noisy-neighbour").results
    widths = [bar.get_width() for bar in get_axes(figure, 0).patches][11:]
    assert widths == pytest.approx([results[0].client_admitted[0] / 1500, *[1.0] * 10])
    assert "noisy" in read_texts(figure)


def deny_some(count: int, every: int) -> Comparison:
    """Return decisions on one or two requests of each of `count` clients, of which one in `every` is denied."""
    base = compare_unusual("one")
    clients = np.sort(np.append(np.arange(count), np.arange(0, count, 2)))
    first = np.append(True, np.diff(clients) > 0)
    ones, names = np.ones(len(clients), np.int64), tuple(map(str, range(count)))
    traffic = Traffic(np.arange(len(clients)), clients, ones, names, np.arange(count), len(clients))
    allowed = ~first | (clients % every != 0)
    columns = {**dict.fromkeys(ROW_FIELDS, np.zeros(len(clients), np.int64)), "allowed": allowed}
    outcomes = tuple(Outcome(outcome.policy, traffic, columns) for outcome in base.outcomes)
    return Comparison(traffic, outcomes, None, tuple(measure(outcome, None) for outcome in outcomes))


@pytest.mark.slow
def test_denied_clients_of_many_are_dots_at_their_denied_share() -> None:
    figure = draw(deny_some(10_000, 4001), "fairness")
    dots, median = get_axes(figure, 0).lines
    assert sorted(dots.get_xdata().tolist()) == [0.5, 0.5, 1.0]  # 1 of 2 requests, and 1 of 1
    assert median.get_xdata().tolist() == [0.5, 0.5]
    assert "3 (0.03 %) denied; half of them lost at least 50 %" in read_texts(figure)
    assert str(figure.get_label()).startswith("The worst served client lost 1 of 1 requests (100 %) with token-bucket,")


@pytest.mark.slow
def test_many_denied_clients_are_quantiles_of_their_denied_share() -> None:
    whole, half, median = get_axes(draw(deny_some(3_000, 3), "fairness"), 0).lines
    assert whole.get_xdata().tolist() == half.get_xdata().tolist() == [0.5, 1.0]
    assert median.get_xdata().tolist() == [0.75, 0.75]


@pytest.mark.slow
def test_the_denials_chart_has_the_time_of_each_denial_by_client() -> None:
    comparison = compare_dated()
    figure, texts = draw(comparison, "denials"), read_texts(draw(comparison, "denials"))
    for number, result in enumerate(comparison.results):
        denied = result.client_offered - result.client_admitted
        rows = [row for row in get_axes(figure, number).collections if len(row.get_paths())]
        assert len(rows) == np.count_nonzero(denied)
        assert {f"{count:,}" for count in denied[denied > 0].tolist()} <= {*texts}
    assert find_overlaps(figure) == []
    assert texts[0].startswith("client-2 was denied most: ")


@pytest.mark.parametrize("chart", ["fairness", "denials"])
def test_a_chart_of_denials_without_any_is_a_sentence(chart: str) -> None:
    figure = draw_scenario(chart, "thundering-herd")
    assert figure.axes == []
    assert any(text.startswith("There is nothing to show: ") for text in read_texts(figure))
