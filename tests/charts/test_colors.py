"""Colors of charts: distinguishable with any color vision, and in contrast to the paper."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from chart_inspection import drawn
from matplotlib.colors import to_hex, to_rgb

from ratelab.algorithms import COMPARED
from ratelab.report.charts import THEMES
from ratelab.report.charts.style import THEMES as PAPERS
from ratelab.report.charts.style import colours

COLOR_VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Matrices on linear light that simulate color blindness: Machado, Oliveira and Fernandes (2009)."""


def light(colour: str) -> Any:
    """Return the linear light of red, green and blue."""
    coded = np.array(to_rgb(colour))
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def lab(seen: Any) -> Any:
    """Return linear light as CIE L*a*b*, in which equal distances look equal."""
    white = np.array([0.9505, 1, 1.089])
    x, y, z = np.cbrt(np.clip(TO_XYZ @ np.clip(seen, 0, 1) / white, 0.008856, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@pytest.mark.parametrize("theme", THEMES)
def test_colors_contrast_with_the_paper(theme: str) -> None:
    for colour in colours([*COMPARED, "gcra", *map(str, range(6))], theme).values():
        shades = sorted(float((TO_XYZ @ light(one))[1]) + 0.05 for one in (colour, PAPERS[theme].paper))
        assert shades[1] / shades[0] > 3, colour


@pytest.mark.parametrize("theme", THEMES)
def test_text_contrasts_with_the_paper(theme: str) -> None:
    figure = drawn("outcome", theme=theme)
    shades = {float((TO_XYZ @ light(to_hex(text.get_color())))[1]) + 0.05 for text in figure.texts}
    paper = float((TO_XYZ @ light(PAPERS[theme].paper))[1]) + 0.05
    assert min(max(shade / paper, paper / shade) for shade in shades) > 4.45


@pytest.mark.parametrize("eye", COLOR_VISION)
@pytest.mark.parametrize("theme", THEMES)
def test_colors_are_distinguishable_with_any_color_vision(eye: str, theme: str) -> None:
    seen = {name: lab(COLOR_VISION[eye] @ light(one)) for name, one in colours(COMPARED, theme).items()}
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, (one, other)


def test_an_algorithm_has_the_same_color_in_every_comparison() -> None:
    alone = {name: colours([name], "dark")[name] for name in (*COMPARED, "gcra", "toll", "mine")}
    assert colours(list(alone), "dark") == alone
    assert len(set(alone.values())) == len(alone)
    assert len({*colours([str(number) for number in range(6)], "light").values()}) == 6
