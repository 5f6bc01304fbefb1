"""The page of a tuning: its sliders in a browser, its tables without scripts, and its chart."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import dump_dom
from cli_runner import SCENARIOS, get_error, get_output

from ratelab.algorithms import create
from ratelab.lab.replay import replay
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.tune import tune
from ratelab.lab.tune.curves import SHARES, measure_curves, measure_grid
from ratelab.quota import Quota
from ratelab.report.numbers import format_percent

pytestmark = pytest.mark.slow

SCENARIO = SCENARIOS / "noisy-neighbour.yaml"

MOVE = """
for (const [id, value] of [["rate", 0], ["burst", 4]]) {
  const slider = document.getElementById(id);
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
}
document.body.dataset.beyond = document.documentElement.scrollWidth - window.innerWidth;
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "tune.html"
    get_output("tune", SCENARIO, "--html", path)
    return path


def read_data(page: Path) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert match is not None
    data: dict[str, Any] = json.loads(match[1])
    return data


def test_the_grid_counts_what_replays_deny() -> None:
    tuning = tune(load_scenario(str(SCENARIO)).traffic)
    grid, traffic = measure_grid(tuning), tuning.traffic
    assert tuning.recommended.policy.quota.burst in grid.bursts
    for row, rate in [*enumerate(grid.rates)][::6]:
        for column, burst in [*enumerate(grid.bursts)][::4]:
            allowed = replay(create("token-bucket", rate, burst), traffic).decisions["allowed"]
            assert grid.requests_denied[row, column] == int((~allowed).sum())
            assert grid.clients_denied[row, column] == len({*traffic.request_keys[~allowed].tolist()})


def test_a_curve_is_the_smallest_burst_that_denies_no_larger_share() -> None:
    tuning = tune(load_scenario(str(SCENARIO)).traffic)
    rates = [Quota.parse("1/s"), Quota.parse("20/s")]
    for place, rate in enumerate(rates):
        needs = tuning.frontier.find_needs(rate)
        for share in SHARES:
            burst = measure_curves(tuning, rates).bursts[share][place]
            assert np.count_nonzero(needs > burst) <= share * len(needs) < np.count_nonzero(needs > burst - 1)


def test_the_page_needs_no_network_and_has_its_tables_without_scripts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:)[^#]', text)
    assert '<section aria-labelledby="explore" id="sliders" hidden>' in text
    assert text.count("<table") == 1  # of the needs; this scenario has no outliers and no dates
    data = read_data(page)
    assert (len(data["requestsDenied"]), len(data["listed"])) == (len(data["rates"]), 11)


@pytest.mark.parametrize("width", [500, 1400])
def test_a_moved_slider_shows_the_denials_of_its_limit(page: Path, tmp_path: Path, width: int) -> None:
    text = page.read_text(encoding="utf-8")
    allowed = f"script-src 'sha256-{b64encode(sha256(MOVE.encode()).digest()).decode()}'"
    moved = tmp_path / "moved.html"
    moved.write_text(
        text.replace("script-src", allowed).replace("</body>", f"<script>{MOVE}</script></body>"), encoding="utf-8"
    )
    document, data = dump_dom(moved, f"--window-size={width},900"), read_data(page)
    requests, clients, burst = data["requestsDenied"][0][4], data["clientsDenied"][0][4], data["bursts"][4]
    effect = re.search(r'id="effect"[^>]*>([^<]*)<', document)
    assert effect is not None
    assert effect[1].startswith(
        f"token-bucket, {data['rates'][0]}, burst {burst}, denies {requests:,} of 1,800 requests ("
    )
    assert effect[1].endswith(f"to {clients} of 11 clients ({format_percent(clients / 11).replace(' ', '&nbsp;')}).")
    named = [client["name"] for client in data["listed"] if client["needs"][0] > burst]
    assert {*re.findall(r"<li><bdi>([^<]*)</bdi> needs", document)} == {*named}
    beyond = re.search(r'data-beyond="(-?[0-9]+)"', document)
    assert beyond is not None
    assert int(beyond[1]) <= 0


def test_the_chart_states_the_recommendation(tmp_path: Path) -> None:
    for layout in ("wide", "narrow"):
        get_output("tune", SCENARIO, "--plot", tmp_path / f"{layout}.svg", "--layout", layout)
        drawn = (tmp_path / f"{layout}.svg").read_text(encoding="utf-8")
        assert "<title>Recommended: token-bucket, 200/min, burst 2,200. On this traffic it denies no request." in drawn
        assert "none to 1 %" in drawn
        assert {*re.findall(r"[0-9]/(s|min|h|day)\b", drawn)} == {"min"}, "the axis has the unit of the recommendation"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--html", "page.txt"], "--html must be an .html file, got 'page.txt'"),
        (["--html", "pages/"], "--html must be an .html file, got 'pages/'"),
        (["--plot", "chart.gif"], "--plot must be a .png, .svg or .pdf file or a directory, got 'chart.gif'"),
        (["--layout", "narrow"], "--layout needs a chart"),
    ],
)
def test_a_target_that_cannot_be_written_is_one_line(options: list[str], line: str) -> None:
    assert line in get_error("tune", SCENARIO, *options)
