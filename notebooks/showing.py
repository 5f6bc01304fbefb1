"""Helpers of the notebooks: commands, scenarios, requests, text, tables and charts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

from IPython.display import Markdown, display
from matplotlib.figure import Figure
from PIL import Image
from ratelab import ALGORITHMS, Quota, create
from ratelab.cli.loop_runs import create_case
from ratelab.http.asgi import App, Message, Scope
from ratelab.lab.closed_loop.figures import LoopComparison, compare_loops
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.counter_estimate import Estimate, measure_estimate
from ratelab.lab.decisions import Decisions
from ratelab.lab.metrics import Result
from ratelab.lab.scenarios import Scenario, load_scenario, load_variants
from ratelab.lab.sweep import SweepResult, build_policies, parse_quotas, sweep
from ratelab.lab.traffic import Traffic
from ratelab.learn.chart import draw_verdict
from ratelab.learn.drill import grade
from ratelab.learn.questions import QUESTIONS
from ratelab.learn.verdict import render_verdict
from ratelab.limiter import ROW_FIELDS
from ratelab.report.charts import draw, render_figure
from rich.console import Console

ROOT = Path(__file__).parent.parent
"""The root of the repository, where commands run."""

RETRIES = ROOT / "scenarios" / "clients-that-retry"

FIVE = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter")
BUILT_IN = (*FIVE, "gcra")
"""Algorithms by name, so that the notebooks do not change if another one is added."""

COLORED = {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm", "COLORTERM": "", "NO_COLOR": ""}
PLAIN = {"COLUMNS": "80", "FORCE_COLOR": "", "NO_COLOR": "1"}
"""Environment variables that make a command print the same text everywhere."""

MAX_COLORS = 64
"""Colors of a stored chart; more would only make the notebook larger."""

MAX_EVIDENCE_LINES = 9


# --- commands and scenarios


def run_command(command: str, folder: str | Path = ROOT) -> None:
    """Run a command, by default in the root of the repository; print it and its output."""
    _, *arguments = shlex.split(command)
    print(f"{_wrap_command(command)}\n{_run(['-m', 'ratelab', *arguments], folder, COLORED)}")


def _run(
    arguments: Sequence[str],
    folder: str | Path = ROOT,
    environment: Mapping[str, str] = PLAIN,
) -> str:
    """Run Python, and return its standard output and standard error."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.stdout.rstrip()


def _wrap_command(command: str) -> str:
    """Break a command before options and files, as one would type it in a shell."""
    words = re.sub(r"(--\S+) (?!-)", "\\1\0", command)  # keep an option next to its value
    unbroken: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    lines = [command] if "\n" in command else wrap(words, width=76, **unbroken)
    return "$ " + " \\\n    ".join(lines).replace("\0", " ")


class Run(NamedTuple):
    """A scenario replayed through some algorithms."""

    comparison: Comparison
    quota: Quota
    traffic: Traffic
    results: dict[str, Result]
    """The figures by algorithm."""
    decisions: dict[str, Decisions]
    """The decisions by algorithm."""


def replay_scenario(name: str, *algorithms: str) -> Run:
    """Replay a scenario of the repository through the named algorithms."""
    scenario = _load(name)
    policies = [create(algorithm, scenario.open_loop_quota) for algorithm in algorithms]
    comparison = compare(policies, scenario.traffic, fields=ROW_FIELDS)
    decisions = {outcome.policy.name: outcome.rows for outcome in comparison.outcomes}
    results = {result.algorithm: result for result in comparison.results}
    return Run(comparison, scenario.open_loop_quota, scenario.traffic, results, decisions)


def run_clients(name: str) -> LoopComparison:
    """Run the clients of a scenario in `clients-that-retry`."""
    variants = load_variants(str(RETRIES / f"{name}.yaml"))
    return compare_loops([create_case(scenario, ()) for scenario in variants])


def estimate_counter(name: str) -> Estimate:
    """Compare the estimate of a sliding counter with the exact count in a scenario."""
    scenario = _load(name)
    return measure_estimate(scenario.open_loop_quota, scenario.traffic)


def sweep_quotas(algorithm: str, rates: str, bursts: str, traffic: Traffic) -> SweepResult:
    """Replay traffic under each quota of up to ten rates and the given bursts."""
    policies = build_policies([ALGORITHMS[algorithm]], parse_quotas(rates, bursts, steps=10))
    return sweep(policies, traffic)


def _load(name: str) -> Scenario:
    return load_scenario(str(ROOT / "scenarios" / f"{name}.yaml"))


# --- requests


class Response(NamedTuple):
    """The response of an application."""

    status: int
    headers: dict[str, str]
    body: str
    """The text without the newline at its end."""


def request(peer: str = "192.0.2.1", path: str = "/ping", **headers: str) -> Scope:
    """Build the scope of a request; `x_api_key="..."` sets the header X-API-Key."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    target = {"type": "http", "method": "GET", "path": path, "client": (peer, 50_000)}
    return {**target, "headers": fields}


async def send(app: App, scope: Scope) -> Response:
    """Send a request to an application, without a server, and return its response."""
    sent: list[dict[str, Any]] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def collect(message: Message) -> None:
        sent.append(dict(message))

    await app(scope, receive, collect)
    head, *parts = sent
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    body = b"".join(part["body"] for part in parts).decode()
    return Response(head["status"], headers, body.rstrip("\n"))


# --- text, tables and charts


def show_text(text: str) -> None:
    """Show Markdown text."""
    display(Markdown(text))


def show_table(headers: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Show rows as a table; columns of numbers are aligned to the right."""
    cells = [[_format_cell(value) for value in row] for row in rows]
    rule = [
        "---:" if all(map(_is_number, column)) else "---" for column in zip(*cells, strict=True)
    ]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (headers, rule, *cells)]
    show_text("\n".join(lines))


def _format_cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|").replace("\n", "<br>")


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit()


def show_chart(run: Run, name: str) -> None:
    """Show one of ratelab's charts of a replayed scenario."""
    show_figure(draw(run.comparison, name))


def show_figure(figure: Figure) -> None:
    """Show a figure; its title is the alternative text."""
    file = BytesIO()
    picture = Image.open(BytesIO(render_figure(figure, "png"))).convert("RGB").quantize(MAX_COLORS)
    picture.save(file, "png", optimize=True)
    data = {"image/png": file.getvalue(), "text/plain": figure.get_label()}
    display(data, raw=True, metadata={"image/png": {"width": 800}})


# --- drills and questions


def grade_step(algorithm: str, step: Callable[..., Any] | str) -> None:
    """Grade a step; show the verdict as `ratelab drill` does, and its chart."""
    verdict, output = grade(algorithm, step), StringIO()
    style: dict[str, Any] = {"force_terminal": True, "color_system": "standard"}
    console = Console(file=output, width=96, force_jupyter=False, **style)
    console.print(render_verdict(verdict))
    print(output.getvalue().rstrip())
    if verdict.requests:
        show_figure(draw_verdict(verdict))


def show_question(number: int) -> None:
    """Show a question, and behind a fold its answer and the evidence of its command."""
    question = QUESTIONS[number - 1]
    program, *arguments = shlex.split(question.command)
    output = _run(arguments if program == "python" else ["-m", "ratelab", *arguments])
    evidence = _find_evidence(output.splitlines(), question.evidence)
    shown = f"{question.answer}\n\n```\n{_wrap_command(question.command)}\n{evidence}\n```"
    fold = f"<details><summary>Answer</summary>\n\n{shown}\n\n</details>"
    show_text(f"**{number}. {question.question}**\n\n{fold}")


def _find_evidence(lines: list[str], pattern: str) -> str:
    """Return the lines that match the pattern; if there are many, those of each of its parts."""
    found = _shortest_match(lines, pattern)
    parts = [found]
    if len(found) > MAX_EVIDENCE_LINES:
        parts = [_shortest_match(found, part) for part in pattern.split(" .* ")]
    return "\n".join(["...", *("\n".join([*part, "..."]) for part in parts)])


def _shortest_match(lines: list[str], pattern: str) -> list[str]:
    """Return the fewest successive lines that match the pattern; all lines if none match."""
    spans = (
        (begin, size) for size in range(1, len(lines) + 1) for begin in range(len(lines) - size + 1)
    )
    for begin, size in spans:
        part = lines[begin : begin + size]
        if re.search(pattern, " ".join(" ".join(part).split())):
            return part
    return lines
