"""What the README says is what happens."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from asgi_calls import call
from click.testing import CliRunner

import ratelab
from ratelab.cli import ratelab_command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [
    line.partition("#")[0].partition(" > ")[0].rpartition("|")[2].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if re.search(r"(^|\| )ratelab ", line)
]
ELSEWHERE = ("cooldown", "--html", "mostly-quiet")
"""What is in a command that another test runs, or that takes its time."""

SIMULATIONS = [
    command
    for command in COMMANDS
    if command.startswith("ratelab simulate") and not any(part in command for part in ELSEWHERE)
]
CAPTURED = blocks("console")


def expanded(command: str) -> list[str]:
    words = shlex.split(command)[1:]
    return [part for word in words for part in (sorted(map(str, ROOT.glob(word))) or [word])]


@pytest.mark.parametrize("block", CAPTURED, ids=[block.splitlines()[0] for block in CAPTURED])
def test_captured_output_is_what_the_command_prints(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    command, _, output = block.partition("\n")
    result = CliRunner().invoke(ratelab_command, expanded(command.removeprefix("$ ")))
    assert [line.rstrip() for line in result.output.splitlines()] == output.splitlines()


@pytest.mark.parametrize("command", SIMULATIONS)
def test_each_simulation_runs_as_written(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(ratelab_command, expanded(command))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_the_options_shown(command: str) -> None:
    name, *arguments = expanded(command)
    wanted = ratelab_command.get_command(click.Context(ratelab_command), name)
    assert wanted is not None
    wanted.make_context(name, arguments)


def test_the_picture_shown_says_what_its_command_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = re.compile(r"<title>.*</title>|<!-- .* -->")  # every text of a picture, whatever the shapes of its letters
    sources = re.findall(r'(?:src|srcset)="(\.readme/.*?)"', README)
    (command,) = (line for block in blocks("sh") for line in block.splitlines() if ".readme" in line)
    assert sorted(sources) == [command.split()[-2].replace("$theme", theme).rstrip(";") for theme in ("dark", "light")]
    plotted = ["simulate", str(ROOT / "scenarios/burst.yaml"), "--plot", str(tmp_path / "drawn.svg")]
    assert CliRunner().invoke(ratelab_command, plotted).exit_code == 0
    drawn = told.findall((tmp_path / "drawn.svg").read_text(encoding="utf-8"))
    assert len(drawn) > 50
    for source in sources:
        assert told.findall((ROOT / source).read_text(encoding="utf-8")) == drawn


def test_the_algorithm_of_ones_own_runs_as_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = next(block for block in blocks("python") if "class Cooldown" in block)
    (tmp_path / "cooldown.py").write_text(source)
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(tmp_path)
    for command in (line for line in COMMANDS if "cooldown" in line):
        result = CliRunner().invoke(ratelab_command, expanded(command))
        assert result.exit_code == 0, result.output
        assert "cooldown" in result.output


def test_the_library_example_runs_as_written() -> None:
    example = next(block for block in blocks("python") if "MemoryLimiter(" in block)
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102  (our own text)


def test_the_application_shown_limits_each_route_as_written() -> None:
    example = next(block for block in blocks("python") if "FastAPI()" in block)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102  (our own text)
    searches = [call(names["app"], path="/search") for _ in range(6)]
    assert [one.status for one in searches] == [200] * 5 + [429]
    assert searches[0].of("ratelimit-policy") == ['"sliding-log";q=5;w=60']
    exports = [call(names["app"], path="/export") for _ in range(3)]
    assert [one.status for one in exports] == [200, 200, 429]
    assert exports[0].of("ratelimit") == ['"token-bucket";r=10;t=1']
    assert call(names["app"], path="/healthz").of("ratelimit") == []
    assert call(names["app"], path="/search", headers="X-API-Key: alice").status == 200


def test_the_table_of_algorithms_agrees_with_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ratelab.algorithms import ALGORITHMS
    from ratelab.quota import Quota
    from ratelab.report.catalogue import catalogue

    for name, algorithm in ALGORITHMS.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert catalogue(algorithm, Quota.parse("2/s", 5)).at_most == row.split("|")[4].replace("`", "").strip()


def test_every_figure_is_explained_as_a_page_explains_it() -> None:
    from ratelab.report.meanings import MEANINGS
    from ratelab.report.rows import COLUMNS

    section = README.partition("### What the figures mean")[2].partition("## Scenarios")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", section, re.MULTILINE)
    assert [(tuple(re.findall(r"`(\w+)`", names)), told.replace("`", "")) for names, told in rows] == [*MEANINGS]
    assert {*COLUMNS} - {"algorithm"} <= {name for names, _ in MEANINGS for name in names}


def test_the_scenario_shown_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "lunch.yaml").write_text(next(block for block in blocks("yaml") if "name: lunch" in block))
    result = CliRunner().invoke(ratelab_command, ["simulate", str(tmp_path / "lunch.yaml")])
    assert result.exit_code == 0, result.output
    assert "from 51 clients" in result.output


GLOSSARY = re.findall(r"^\| ([^|`]+) \| `([^`|]+)` \| (.+) \|$", README.partition("## Glossary")[2], re.MULTILINE)


def there_is(name: str) -> bool:
    """Say whether something below `ratelab`, or a file, has this name."""
    if "/" in name:
        return (ROOT / name).is_file()
    found: Any = ratelab
    for part in name.split("."):
        with suppress(ImportError):
            import_module(f"{found.__name__}.{part}")
        if not hasattr(found, part):
            return part in getattr(found, "__annotations__", ())
        found = getattr(found, part)
    return True


def test_the_glossary_has_twenty_terms_in_a_sentence_each() -> None:
    assert len({term for term, _, _ in GLOSSARY}) == 20
    assert [meaning for _, _, meaning in GLOSSARY if not re.fullmatch(r"[A-Z][^.]*\.", meaning)] == []


@pytest.mark.parametrize("name", [name for _, name, _ in GLOSSARY])
def test_what_the_glossary_names_is_in_the_code(name: str) -> None:
    assert there_is(name)
    assert not there_is(f"{name}s")
