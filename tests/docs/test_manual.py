"""Commands, output and code of the README and of every manual page."""

from __future__ import annotations

import re
import sys
import tomllib
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from asgi import call
from manual import PAGES, ROOT, Command, block, blocks, command_of, commands, fill_workspace, output_of, run, sessions
from slow_parameters import mark_slow

import ratelab
from ratelab import ManualClock, MemoryLimiter, create
from ratelab.algorithms import ALGORITHMS
from ratelab.cli import ratelab_command
from ratelab.http import RateLimitMiddleware
from ratelab.http.asgi import Receive, Scope, Send
from ratelab.lab.accuracy import Accuracy
from ratelab.lab.closed_loop.figures import LoopResult
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.lab.policies.figures import PolicyResult
from ratelab.quota import Quota
from ratelab.report.catalogue import describe_algorithm

LIVE = ("serve", "verify", "watch", "keys")
"""Commands that need a server or a terminal; only their options are checked here."""

OMITTED = ("--engine", "--html", "charts/", "mostly-quiet", "big.log", "--format recording", "--on-store", "goodput")
"""Parts of commands that take long, or need workers or a recording; only their options are checked here."""

LONG_PAGES = {"README.md", "ratelab/docs/judge.md", "ratelab/docs/policies.md", "ratelab/docs/tune.md"}
"""Pages whose sessions only the slow run executes."""

SLOW = ("--plot", "drill", "scenarios/*.yaml", "retry-storm", "retry-budget", "judge")
"""Parts of commands that only the slow run executes."""

WRITING = ("--plot", "--markdown")

DRAWN = {one.arguments[:end] for one in commands() for end, word in enumerate(one.arguments) if word in WRITING}
"""Arguments of commands that also stand on a page with a picture or a badge, and print the same."""

RUN = [
    one
    for one in commands()
    if one.arguments[0] not in LIVE and one.arguments not in DRAWN and not any(part in one.text for part in OMITTED)
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    fill_workspace(folder)
    return folder


@pytest.mark.parametrize("page", mark_slow(sessions(), sessions().keys() - LONG_PAGES))
def test_console_sessions_show_what_the_commands_print(page: str, tmp_path: Path) -> None:
    fill_workspace(tmp_path)
    for line, output in sessions()[page]:
        assert output_of(page, line, tmp_path) == output, "run python tests/support/manual.py --update"


@pytest.mark.parametrize("command", commands(), ids=str)
def test_every_command_has_the_options_shown(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in command.variables.items():
        monkeypatch.setenv(name, value)
    name, *arguments = command.arguments
    wanted = ratelab_command.get_command(click.Context(ratelab_command), name)
    assert wanted is not None
    wanted.make_context(name, arguments, auto_envvar_prefix=None)


@pytest.mark.parametrize(
    "command", mark_slow(RUN, [one for one in RUN if not any(part in one.text for part in SLOW)]), ids=str
)
def test_every_command_runs_as_written(command: Command, workspace: Path) -> None:
    result = run(command, workspace, stdin=(workspace / "access.log").read_bytes())
    expected = 1 if command.arguments[0] == "drill" and "answer.py" in command.arguments else 0  # an unfinished answer
    assert result.exit_code == expected, result.output
    assert "cooldown" in result.output or "cooldown" not in command.text


@pytest.mark.parametrize("source", [one.text for one in blocks("python") if "settings.configure" not in one.text])
def test_python_examples_run_as_written(source: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("RATELAB_KEY_SECRET", "change-me")  # which limits in a store need
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # a dataclass looks its module up
    exec(compile(source, "example", "exec"), vars(module))  # noqa: S102  (our own text)


@pytest.mark.usefixtures("stopped_clock")
def test_the_application_shown_limits_each_route_as_written() -> None:
    names: dict[str, Any] = {}
    exec(compile(block("python", '"/export": 10'), "shop.py", "exec"), names)  # noqa: S102  (our own text)
    searches = [call(names["app"], path="/search") for _ in range(6)]
    assert [one.status for one in searches] == [200] * 5 + [429]
    assert searches[0].of("ratelimit-policy") == ['"sliding-log";q=5;w=60']
    exports = [call(names["app"], path="/export") for _ in range(3)]
    assert [one.status for one in exports] == [200, 200, 429]
    assert exports[0].of("ratelimit") == ['"token-bucket";r=10;t=1']
    assert call(names["app"], path="/healthz").of("ratelimit") == []
    assert call(names["app"], path="/search", headers="X-API-Key: alice").status == 200


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_the_429_shown_is_the_response_of_the_middleware() -> None:
    head, _, body = block("http", '"token-bucket"').rstrip("\n").partition("\n\n")
    status, *lines = head.splitlines()
    app = RateLimitMiddleware(respond, MemoryLimiter(create("token-bucket", "2/s", burst=5), ManualClock()))
    *_, denied = [call(app) for _ in range(6)]
    fields = [f"{name.decode()}: {value.decode()}" for name, value in denied.fields if name != b"content-length"]
    assert (status, lines) == (f"HTTP/1.1 {denied.status} Too Many Requests", fields)
    assert body == denied.body.decode().rstrip("\n")


def test_the_table_of_algorithms_agrees_with_the_classes() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", PAGES["ratelab/docs/algorithms.md"], re.MULTILINE))
    assert [*rows][:6] == ["token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra"]
    for name in [*rows][:6]:
        bound = rows[name].split("|")[2].replace("`", "").strip()
        assert bound == describe_algorithm(ALGORITHMS[name], Quota.parse("2/s", 5)).at_most


def test_the_first_example_of_a_step_is_the_algorithm_to_add() -> None:
    first = next(one.text for one in blocks("python") if "def step(" in one.text)
    assert "class Cooldown" in first
    assert "from ratelab.limiter import NEVER" in first


def test_the_entry_point_shown_is_the_one_that_is_read() -> None:
    (group,) = tomllib.loads(block("toml", "entry-points"))["project"]["entry-points"].values()
    assert group == {"cooldown": "cooldown:Cooldown"}


def test_the_scenario_shown_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "lunch.yaml").write_text(block("yaml", "name: lunch"))
    command = command_of("", "ratelab simulate lunch.yaml")
    assert command is not None
    result = run(command, tmp_path)
    assert result.exit_code == 0, result.output
    assert "from 51 clients" in result.output


def test_the_patterns_listed_are_those_that_a_scenario_may_have() -> None:
    from ratelab.lab.scenarios.schema import PATTERNS

    section = PAGES["ratelab/docs/scenarios.md"].partition("## Patterns")[2].partition("## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == [*PATTERNS]


def test_every_figure_is_explained_in_the_words_of_its_field() -> None:
    section, _, others = PAGES["ratelab/docs/figures.md"].partition("## Charts")[0].partition("## Clients that react")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    figures = [item for kind in (Result, Accuracy, EqualResult, PolicyResult) for item in list_figures(kind).items()]
    assert [(name, text.replace("`", "")) for name, text in rows] == [
        (name, figure.meaning) for name, figure in figures
    ]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", others, re.MULTILINE)
    assert [(name, text.replace("`", ""), source) for name, text, source in rows] == [
        (name, figure.meaning, figure.source or "-") for name, figure in list_figures(LoopResult).items()
    ]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for target in re.findall(r"\]\(([^)]*)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES)
def test_files_of_the_project_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"(?<![\w/.])((?:tests|scenarios|notebooks|ratelab)/[\w./-]*[\w])", PAGES[page])
    assert [name for name in named if not (ROOT / name).exists()] == []


GLOSSARY = re.findall(r"^\| ([^|`]+) \| `([^`|]+)` \| (.+) \|$", PAGES["ratelab/docs/glossary.md"], re.MULTILINE)


def exists(name: str) -> bool:
    """Check whether something below `ratelab`, or a file, has this name."""
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
def test_every_name_in_the_glossary_is_in_the_code(name: str) -> None:
    assert exists(name)
    assert not exists(f"{name}s")
