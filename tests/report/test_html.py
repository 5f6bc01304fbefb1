"""HTML pages of runs: self-contained, accessible, and safe for any client name."""

from __future__ import annotations

import html
import json
import re
import shlex
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from browser import DARK, dump_dom, take_screenshot
from cli_runner import BURST, SCENARIOS, get_error, get_output
from PIL import Image

import ratelab
from ratelab.algorithms import COMPARED, create
from ratelab.lab.accuracy import Accuracy
from ratelab.lab.comparison import compare, with_accuracy
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.lab.scenarios import load_scenario
from ratelab.report.charts import draw
from ratelab.report.charts.style import THEMES
from ratelab.report.html import Provenance, render_page
from ratelab.report.html.page import Image as PageImage
from ratelab.report.html.page import Picture
from ratelab.report.summary import Run

HOSTILE = (
    "<script>document.title = 'robbed'</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "&lt;b&gt; שלום",
    "x" * 1000,
)
PROVENANCE = Provenance("ratelab simulate odd.yaml --html odd.html", "1.2.3")


class Elements(HTMLParser):
    """The elements of a page in order, with their attributes and the text directly in each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def text(self, tag: str) -> list[str]:
        return [text.strip() for (name, _), text in zip(self.found, self.texts, strict=True) if name == tag]


def get_paper_color(image: Image.Image) -> str:
    """Return the color of the upper left corner of an image."""
    return f"#{image.convert('RGB').crop((0, 0, 1, 1)).tobytes().hex()}"


def run_scenario(path: Path) -> Run:
    scenario = load_scenario(str(path))
    policies = [create(name, scenario.open_loop_quota) for name in COMPARED]
    comparison = with_accuracy(compare(policies, scenario.traffic))
    return Run(comparison, {"scenario": scenario.name}, scenario.name, scenario=scenario)


def write_bursts(folder: Path, sizes: dict[str, int]) -> Path:
    """Write a scenario in which each client sends this number of requests at once."""
    clients = "".join(
        f"  - name: {json.dumps(name)}\n    traffic: [{{pattern: burst, at: 1s, size: {size}}}]\n"
        for name, size in sizes.items()
    )
    text = f"name: odd\ndescription: <b>odd</b>\nduration: 5s\nquota: {{rate: 1/s, burst: 5}}\nclients:\n{clients}"
    (folder / "odd.yaml").write_text(text, encoding="utf-8")
    return folder / "odd.yaml"


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a run whose clients have hostile names, each with more requests than the one before."""
    folder = tmp_path_factory.mktemp("odd")
    run = run_scenario(write_bursts(folder, {name: size for size, name in enumerate(HOSTILE, 8)}))
    (folder / "odd.html").write_text(render_page(run, [], PROVENANCE), encoding="utf-8")
    return folder / "odd.html"


@pytest.fixture(scope="module")
def burst_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the page that the command line writes for a scenario."""
    path = tmp_path_factory.mktemp("burst") / "burst.html"
    with pytest.MonkeyPatch.context() as patched:  # draw the fastest chart instead of each
        patched.setattr(
            "ratelab.report.html.page.draw",
            lambda comparison, _, *options, **more: draw(comparison, "outcome", *options, **more),
        )
        get_output("simulate", BURST, "--algo", "token-bucket", "--equalize", "peak", "--html", path)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the charts, which are slow to draw."""
    image = PageImage("", "", 1, 1)
    monkeypatch.setattr("ratelab.report.html.page.draw_picture", lambda _, chart: Picture(chart, "", image, image))


# --- content


def test_a_page_is_complete_and_fetches_nothing(burst_page: str) -> None:
    elements = Elements(burst_page)
    assert elements.text("h1") == [
        "token-bucket let 7 through in a window of 2.5\N{NO-BREAK SPACE}s, above the quota of 5."
    ]
    assert elements.text("title") == ["burst at 2/s, burst 5"]
    assert "alice: 1/s, evenly; and 20 requests 10\N{NO-BREAK SPACE}ms apart at 3\N{NO-BREAK SPACE}s" in burst_page
    assert "ratelab simulate" in burst_page
    assert f"in the same directory, with ratelab {ratelab.__version__}:" in burst_page
    assert {name for kind in (Result, Accuracy, EqualResult) for name in list_figures(kind)} <= {
        re.sub(r"\W", "", text) for text in elements.text("code")
    }
    for part in ("Results", "Accuracy", "Equal protection"):
        assert part in elements.text("h2")
    names = ("src", "srcset", "href")
    fetched = [attributes[name] for _, attributes in elements.found for name in names if name in attributes]
    assert {str(address)[:5] for address in fetched} == {"data:"}
    assert len(burst_page) < 2_000_000
    assert "default-src 'none'" in str(elements.all("meta"))


def test_every_chart_has_images_for_each_screen_and_theme(burst_page: str) -> None:
    elements = Elements(burst_page)
    figures, images, sources = (elements.all(tag) for tag in ("figure", "img", "source"))
    assert len(figures) == len(images) == len(sources) / 4
    assert all(re.match(r"[A-Z][\w ,]+: [A-Za-z].{20,}", str(image["alt"])) for image in images)
    screens = {"narrow": "screen and (max-width: 36rem)", "wide": "screen"}
    for number, source in enumerate(sources):
        layout, theme = ("narrow", "narrow", "wide", "wide")[number % 4], ("dark", "light")[number % 2]
        dark = " and (prefers-color-scheme: dark)" if theme == "dark" else ""
        assert source["media"] == screens[layout] + dark
        image = Image.open(BytesIO(b64decode(str(source["srcset"]).partition("base64,")[2])))
        assert get_paper_color(image) == THEMES[theme].paper
        assert image.width / image.height == pytest.approx(
            int(str(source["width"])) / int(str(source["height"])), rel=0.01
        )
        assert int(str(source["width"])) == (420 if layout == "narrow" else 800)
    assert [image["src"] for image in images] == [source["srcset"] for source in sources[3::4]]  # also for print


def test_every_sentence_is_on_the_page_once(burst_page: str) -> None:
    elements = Elements(burst_page)
    sentences = [text for tag in ("h1", "h3", "p", "li", "caption") for text in elements.text(tag) if len(text) > 20]
    assert len(sentences) == len({*sentences})
    assert not any("_" in header for header in elements.text("th")[:6])


@pytest.mark.usefixtures("without_charts")
def test_the_numbers_of_the_heading_are_in_the_results(tmp_path: Path) -> None:
    get_output("simulate", SCENARIOS / "overload.yaml", "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (heading,) = Elements(text).text("h1")
    results = text.partition('id="results"')[2].partition("</section>")[0].replace("\N{NO-BREAK SPACE}", " ")
    numbers = re.findall(r"[0-9][0-9.,]*(?<![.,])", heading)
    assert len(numbers) == 5  # three figures, the window and the quota
    assert [number for number in numbers if number not in results] == []


def test_tables_are_accessible_to_screen_readers(hostile_page: Path) -> None:
    elements = Elements(hostile_page.read_text(encoding="utf-8"))
    tables = elements.all("table")
    assert len(tables) == len(elements.all("caption")) == 4
    assert {header["scope"] for header in elements.all("th")} == {"col", "row"}
    regions = [division for division in elements.all("div") if division.get("role") == "region"]
    assert [region["tabindex"] for region in regions] == ["0"] * len(tables)  # scrollable with the keyboard
    assert all(region["aria-label"] for region in regions)
    assert [root["lang"] for root in elements.all("html")] == ["en"]
    levels = [int(name[1]) for name, _ in elements.found if re.fullmatch(r"h[1-6]", name)]
    assert (levels[0], {*levels[1:]}) == (1, {2})


# --- in a browser

CLICKS = """
const buttons = [...document.querySelectorAll("#clients ~ .wide th button")];
document.body.dataset.firsts = ["client", "offered", "offered"].map((name) => {
  buttons.find((button) => button.textContent === name).click();
  return document.querySelector("#clients ~ .wide tbody data").value;
});
document.body.dataset.beyond = document.documentElement.scrollWidth - window.innerWidth;
"""


@pytest.mark.slow
def test_hostile_names_stay_text_and_the_clients_sort_by_a_click(hostile_page: Path) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    allowed = f"script-src 'sha256-{b64encode(sha256(CLICKS.encode()).digest()).decode()}'"
    clicked = hostile_page.with_name("clicked.html")
    clicked.write_text(
        text.replace("script-src", allowed).replace("</body>", f"<script>{CLICKS}</script></body>"), encoding="utf-8"
    )
    elements = Elements(dump_dom(clicked, "--window-size=500,800"))
    assert elements.text("title") == ["odd at 1/s, burst 5"]
    assert [image for image in elements.all("img") if "onerror" in image] == []
    assert elements.all("body")[0]["data-firsts"] == "9,12,8"  # by name, from the busiest, from the least busy
    clients = [name for name in elements.text("bdi") if name in HOSTILE]
    assert clients[-len(HOSTILE) :] == [*HOSTILE]
    sorted_by = [header.get("aria-sort") for header in elements.all("th") if "aria-sort" in header]
    assert sorted_by == ["ascending"]
    assert int(str(elements.all("body")[0]["data-beyond"])) <= 0  # the page is not wider than the window


WIDTH = "document.body.dataset.beyond = document.documentElement.scrollWidth - window.innerWidth;"


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 620, 800, 1000, 1400])
def test_a_page_with_charts_is_as_wide_as_the_window(burst_page: str, tmp_path: Path, width: int) -> None:
    allowed = f"script-src 'sha256-{b64encode(sha256(WIDTH.encode()).digest()).decode()}'"
    text = burst_page.replace("script-src", allowed).replace("</body>", f"<script>{WIDTH}</script></body>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    elements = Elements(dump_dom(tmp_path / "page.html", f"--window-size={width},800"))
    assert int(str(elements.all("body")[0]["data-beyond"])) <= 0


@pytest.mark.slow
def test_a_page_works_without_scripts_and_in_dark_mode(hostile_page: Path) -> None:
    elements = Elements(hostile_page.read_text(encoding="utf-8"))
    assert elements.all("button") == []  # they would not work
    assert {*elements.text("bdi")} >= {*HOSTILE}
    silent = hostile_page.with_name("silent.html")
    text = hostile_page.read_text(encoding="utf-8")
    silent.write_text(re.sub(r"script-src '[^']+'", "script-src 'none'", text), encoding="utf-8")
    image = Image.open(BytesIO(take_screenshot(silent, 600, DARK)))
    assert get_paper_color(image) == THEMES["dark"].paper
    assert len(set(image.convert("L").tobytes())) > 50  # shades of letters


# --- galleries and targets


@pytest.mark.usefixtures("without_charts")
def test_a_gallery_has_a_page_for_each_scenario_and_an_index(tmp_path: Path) -> None:
    stems = ["burst", "steady", "slow-trickle"]
    paths = [SCENARIOS / f"{stem}.yaml" for stem in stems]
    get_output("simulate", *paths, "--html", f"{tmp_path / 'gallery'}/")
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "gallery").iterdir()}
    assert {*pages} == {"index.html", *(f"{stem}.html" for stem in stems)}
    links = [str(link["href"]) for link in Elements(pages["index.html"]).all("a")]
    assert {*links} == {address for stem in stems for address in (f"{stem}.html", f"#{stem}.html")}
    for path in paths:
        assert str(load_scenario(str(path)).lesson) in html.unescape(pages["index.html"])
        assert [link["href"] for link in Elements(pages[f"{path.stem}.html"]).all("a")] == ["index.html"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_charts")
def test_a_gallery_of_published_figures_has_a_page_that_compares_them(tmp_path: Path) -> None:
    path = SCENARIOS / "published-figures" / "backoff-and-jitter.yaml"
    get_output("simulate", path, BURST, "--html", f"{tmp_path / 'gallery'}/")
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "gallery").iterdir()}
    assert {*pages} == {"index.html", "published.html", "backoff-and-jitter.html", "burst.html"}
    assert "published.html" in [link["href"] for link in Elements(pages["index.html"]).all("a")]
    links = [str(link["href"]) for link in Elements(pages["published.html"]).all("a")]
    assert [link for link in links if not link.startswith("https:")] == ["index.html", "backoff-and-jitter.html"]
    manual = (Path(ratelab.__file__).parent / "docs" / "published.md").read_text(encoding="utf-8")
    assert len(Elements(pages["published.html"]).all("table")) == manual.count("\n## ")


@pytest.mark.usefixtures("without_charts")
def test_no_page_of_a_gallery_overwrites_another(tmp_path: Path) -> None:
    paths = []
    for number, name in enumerate(("Published", "Index", "burst", "BURST", "burst")):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(Path(BURST).read_text(encoding="utf-8").replace("name: burst", f"name: {name}"))
    get_output("simulate", *paths, "--html", f"{tmp_path / 'all'}/")
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "all").iterdir()}
    assert {*pages} == {"index", "Published~2", "Index~2", "burst", "BURST~2", "burst~3"}
    assert Elements(pages["index"]).text("h1") == ["Rate limiting, lesson by lesson"]
    assert Elements(pages["Index~2"]).text("title") == ["Index at 2/s, burst 5"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("page.pdf", "--html must be an .html file or a directory, got "),
        ("", "--html must be an .html file or a directory, got ''"),
        ("nowhere/page.html", "there is no directory"),
        ("nowhere/gallery/", "there is no directory"),
    ],
)
def test_an_invalid_target_is_rejected_before_any_work(tmp_path: Path, target: str, message: str) -> None:
    assert message in get_error("simulate", BURST, "--html", target and f"{tmp_path}/{target}")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_rejected_as_a_folder_for_pages(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("precious")
    assert "page is not a directory" in get_error("simulate", BURST, "--html", f"{tmp_path / 'page'}/")
    assert (tmp_path / "page").read_text() == "precious"


def test_a_page_has_one_scenario(tmp_path: Path) -> None:
    message = get_error("simulate", BURST, BURST, "--html", tmp_path / "page.html")
    assert "cannot hold 2 scenarios: give --html a directory, such as gallery/" in message


@pytest.mark.usefixtures("without_charts")
def test_a_page_of_a_trace_has_the_notes_on_reading(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"time": 1, "ip": "a"}\nnot a line\n')
    command = ["replay", str(tmp_path / "one.jsonl"), "--rate", "1/s", "--html", str(tmp_path / "page.html")]
    get_output(*command)
    text = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "1 line left out, beginning with" in text
    assert f"ratelab {shlex.join(command)}" in text
