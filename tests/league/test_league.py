"""Adapters, reproductions and the page of the league, without its packages."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ratelab.judge import PROMISES, judge

HOME = Path(__file__).parent

sys.path.insert(0, str(HOME))

import command  # noqa: E402
import league  # noqa: E402
import page  # noqa: E402
import reproduce  # noqa: E402

PACKAGES = league.read_packages()

RESULTS = json.loads((HOME / "results.json").read_text("utf-8"))

VARIANTS = [variant for package in PACKAGES for variant in package.variants]


def names_of(path: Path) -> set[str]:
    """Return the names that a module defines at its top level."""
    names: set[str] = set()
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names |= {
                node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
            }
    return names


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_states_its_configuration_bound_and_documentation(package: league.Package) -> None:
    assert package.link.startswith("https://")
    assert package.configuration
    assert package.bound
    assert package.variants
    assert {*package.exempt, *package.known} <= set(PROMISES)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_version_of_a_package_is_pinned(package: league.Package) -> None:
    assert re.fullmatch(r"[0-9][0-9a-z.]*", league.read_pins()[package.name.lower()])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.package}-{variant.name}")
def test_a_variant_has_an_adapter(variant: league.Variant) -> None:
    path = Path(variant.target.rpartition(":")[0]).relative_to("tests/league")
    assert variant.name in names_of(HOME / path)


def test_every_adapter_belongs_to_a_package() -> None:
    adapters = {path.stem for path in (HOME / "adapters").glob("[!_]*.py")}
    assert adapters == {variant.adapter for variant in VARIANTS}


@pytest.mark.parametrize("path", sorted(reproduce.REPRODUCTIONS.glob("*.py")), ids=lambda path: path.stem)
def test_a_reproduction_is_short_needs_no_ratelab_and_was_run(path: Path) -> None:
    text = path.read_text("utf-8")
    package, _, promise = path.stem.rpartition("-")
    assert sum(bool(line.strip()) for line in text.splitlines()) <= reproduce.MAX_LINES
    assert "ratelab" not in text
    assert package in {package.name for package in PACKAGES}
    assert promise in PROMISES
    recorded = reproduce.read_outputs()[path.stem]
    assert recorded["output"]
    assert recorded["version"].replace("_", "-") == league.read_pins()[package.lower()]


def test_results_name_variants_of_every_package_and_the_pinned_versions() -> None:
    judged = {(result["package"], result["variant"]): result["version"] for result in RESULTS["variants"]}
    assert {*judged} <= {(variant.package, variant.label) for variant in VARIANTS}
    assert {package.name for package in PACKAGES} == {package for package, _ in judged}
    pins = league.read_pins()
    assert all(version == pins[package.lower()] for (package, _), version in judged.items())


def test_the_page_links_every_broken_cell_to_a_reproduction() -> None:
    text = page.render_page(RESULTS)
    links = set(re.findall(r'<a href="#([^"]+)"><b>', text))
    assert links
    assert links <= set(re.findall(r'<h4 id="([^"]+)"', text))


def test_a_fault_without_a_reproduction_is_not_called_broken() -> None:
    package = PACKAGES[0]
    judged = {name: {"kept": False, "reason": "a fault"} for name in PROMISES if name not in package.exempt}
    results = {
        "date": "2026-11-30",
        "python": "3.13",
        "variants": [{"package": package.name, "variant": "one", "version": "1", "promises": judged}],
    }
    states = {cell.promise: cell.state for cell in page.build_sections(results)[0].totals}
    confirmed = {name for name in PROMISES if reproduce.find_reproduction(package.name, name)}
    assert {name for name, state in states.items() if state == page.BROKEN} == confirmed - {*package.exempt}
    assert states["bound"] == page.OPEN


def test_the_manual_has_the_table_of_the_results() -> None:
    manual = (league.ROOT / "ratelab/docs/league.md").read_text("utf-8")
    assert page.render_table(RESULTS) in manual
    counts = page.count_states(RESULTS)
    variants = counts.pop("variants")
    assert dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+ of \d+) \|$", manual, re.MULTILINE)) == {
        promise: f"{count} of {variants}" for promise, count in counts.items()
    }
    readme = " ".join((league.ROOT / "README.md").read_text("utf-8").split())
    rows = [row for section in page.build_sections(RESULTS) for row in section.rows]
    broken = sum(any(cell.state == page.BROKEN for cell in row.cells) for row in rows)
    assert f"judges {variants} variants of {len(PACKAGES)} packages by" in readme
    assert f"; {broken} break at least one" in readme


@pytest.mark.slow
def test_the_league_judges_an_installed_package() -> None:
    package = next(package for package in PACKAGES if package.name == "kombu")
    judgement = judge(str(HOME / "adapters/kombu.py:token_bucket"), ["bound", "wait", "retrying"])
    assert league.find_version(package.name) is not None
    assert [promise.kept for promise in judgement.promises] == [True, True, True]


@pytest.mark.slow
def test_packages_that_are_not_installed_are_skipped_with_a_line() -> None:
    lines: list[str] = []
    missing = [package._replace(name="no-such-package") for package in PACKAGES[:1]]
    assert list(league.run_league(missing, lines.append)) == []
    assert lines == ["no-such-package: not installed, skipped"]


def test_a_page_that_cannot_be_written_is_an_error_before_the_run() -> None:
    result = CliRunner().invoke(command.league, ["--html", "nowhere/league.html"])
    assert (result.exit_code, "there is no directory nowhere" in result.output) == (2, True)
