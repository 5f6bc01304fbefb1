"""Colors of charts: distinguishable with any color vision, and in contrast to the paper."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from chart_inspection import draw_scenario
from matplotlib.colors import to_hex, to_rgb

from ratelab.algorithms import COMPARED
from ratelab.report.charts import THEME_NAMES
from ratelab.report.charts.style import THEMES, assign_colors

COLOR_VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Matrices on linear light that simulate color blindness: Machado, Oliveira and Fernandes (2009)."""

TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def to_light(color: str) -> Any:
    """Return the linear light of red, green and blue."""
    coded = np.array(to_rgb(color))
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def to_lab(light: Any) -> Any:
    """Return linear light as CIE L*a*b*, in which equal distances look equal."""
    white = np.array([0.9505, 1, 1.089])
    x, y, z = np.cbrt(np.clip(TO_XYZ @ np.clip(light, 0, 1) / white, 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def compute_contrast(color: str, other: str) -> float:
    dark, bright = sorted(float((TO_XYZ @ to_light(each))[1]) + 0.05 for each in (color, other))
    return bright / dark


@pytest.mark.parametrize("theme", THEME_NAMES)
def test_colors_contrast_with_the_paper(theme: str) -> None:
    for color in assign_colors([*COMPARED, "gcra", *map(str, range(6))], theme).values():
        assert compute_contrast(color, THEMES[theme].paper) > 3, color


@pytest.mark.parametrize("theme", THEME_NAMES)
def test_text_contrasts_with_the_paper(theme: str) -> None:
    for text in draw_scenario("outcome", theme=theme).texts:
        assert compute_contrast(to_hex(text.get_color()), THEMES[theme].paper) > 4.45, text.get_text()


@pytest.mark.parametrize("deficiency", COLOR_VISION)
@pytest.mark.parametrize("theme", THEME_NAMES)
def test_colors_are_distinguishable_with_any_color_vision(deficiency: str, theme: str) -> None:
    matrix = COLOR_VISION[deficiency]
    seen = {name: to_lab(matrix @ to_light(color)) for name, color in assign_colors(COMPARED, theme).items()}
    for first, second in combinations(seen, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 20, (first, second)


def test_an_algorithm_has_the_same_color_in_every_comparison() -> None:
    alone = {name: assign_colors([name], "dark")[name] for name in (*COMPARED, "gcra", "toll", "mine")}
    assert assign_colors(list(alone), "dark") == alone
    assert len(set(alone.values())) == len(alone)
    assert len({*assign_colors([str(number) for number in range(6)], "light").values()}) == 6
