"""The README: its length, table of contents, picture, tables and test command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from manual import COMPARED, PAGES, ROOT, block

from ratelab.algorithms import ALGORITHMS
from ratelab.cli import ratelab_command
from ratelab.quota import Quota
from ratelab.report.catalogue import describe_algorithm

README = PAGES["README.md"]
HEADINGS = re.findall(r"^## (.*)$", README, re.MULTILINE)


def test_the_readme_has_at_most_300_lines() -> None:
    assert len(README.splitlines()) <= 300


def test_the_introduction_has_five_sentences() -> None:
    introduction = README.partition("**Contents**")[0].split("\n\n")[2]
    assert len(re.findall(r"\.(?:\s|$)", introduction)) == 5


def test_the_contents_link_every_section_in_order() -> None:
    contents = README.partition("**Contents**")[2].partition("\n## ")[0]
    anchors = re.findall(r"\]\(#([a-z-]+)\)", contents)
    assert anchors == [re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS]


def test_every_page_of_the_manual_is_linked() -> None:
    assert {page for page in PAGES if page != "README.md"} <= {*re.findall(r"\]\((ratelab/docs/[a-z]+\.md)\)", README)}


def test_the_table_of_algorithms_agrees_with_the_manual() -> None:
    row = re.compile(r"^\| `([a-z-]+)` \|.*\| ([^|]*) \| ([^|]*) \|$", re.MULTILINE)
    section = README.partition("## Algorithms")[2].partition("\n## ")[0]
    assert row.findall(section) == row.findall(PAGES["ratelab/docs/algorithms.md"])[:6]
    for name, bound, _ in row.findall(section):
        assert describe_algorithm(ALGORITHMS[name], Quota.parse("2/s", 5)).at_most == bound.replace("`", "")


def test_the_test_command_follows_its_marker() -> None:
    command = README.partition("<!-- test command -->\n```sh\n")[2].partition("```")[0]
    assert command.count("\n") == 1
    assert "pytest" in command


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_the_picture_shows_the_texts_that_its_command_draws(tmp_path: Path, layout: str) -> None:
    texts = re.compile(r"<title>.*</title>|<!-- .* -->")  # every text of a picture, whatever the shapes of its letters
    sources = re.findall(rf'(?:src|srcset)="(\.readme/burst-{layout}-.*?)"', README)
    (command,) = (line for line in block("sh", ".readme").splitlines() if ".readme" in line)
    target = command.split()[-1].replace("$layout", layout)
    assert sorted(sources) == [target.replace("$theme", theme) for theme in ("dark", "light")]
    named = [f"--algo={name}" for name in COMPARED]
    plotted = ["simulate", str(ROOT / "scenarios/burst.yaml"), "--plot", str(tmp_path / "drawn.svg"), *named]
    plotted += ["--layout", layout]
    assert CliRunner().invoke(ratelab_command, plotted).exit_code == 0
    drawn = texts.findall((tmp_path / "drawn.svg").read_text(encoding="utf-8"))
    assert len(drawn) > 50
    for source in sources:
        assert texts.findall((ROOT / source).read_text(encoding="utf-8")) == drawn


@pytest.mark.parametrize("package", ["limits", "slowapi", "throttled-py", "pyrate-limiter", "django-ratelimit"])
def test_other_packages_are_compared(package: str) -> None:
    assert f"| [{package}](https://" in README
