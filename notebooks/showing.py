"""What the notebooks show things with: commands, sentences, tables, charts and requests."""

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
from ratelab import ALGORITHMS
from ratelab.http.asgi import App, Message, Scope
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.scenarios import load_scenario
from ratelab.learn.chart import draw_verdict
from ratelab.learn.drill import grade
from ratelab.learn.questions import QUESTIONS
from ratelab.learn.verdict import render_verdict
from ratelab.report.charts import draw, render_figure
from rich.console import Console

ROOT = Path(__file__).parent.parent
"""Where commands run: a clone of the repository."""

COLOURS = {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm", "COLORTERM": "", "NO_COLOR": ""}
PLAIN = {"COLUMNS": "80", "FORCE_COLOR": "", "NO_COLOR": "1"}
"""What has a command print alike everywhere."""

INKS = 64
"""Colours that a chart may have: plenty, and it keeps a notebook small."""


def run(command: str, folder: str | Path = ROOT) -> None:
    """Run a command, by default in a clone of the repository, and print it with what it says."""
    _, *arguments = shlex.split(command)
    print(f"{_typed(command)}\n{_output(['-m', 'ratelab', *arguments], folder, COLOURS)}")


def _output(
    arguments: Sequence[str], folder: str | Path = ROOT, looks: Mapping[str, str] = PLAIN
) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **looks},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    return done.stdout.rstrip()


def tell(text: str) -> None:
    """Show sentences in which a cell has put its figures."""
    display(Markdown(text))


def table(headers: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Show rows; columns of numbers are aligned to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    rule = [
        "---:" if all(map(_is_number, column)) else "---" for column in zip(*cells, strict=True)
    ]
    tell("\n".join("| " + " | ".join(map(str, row)) + " |" for row in (headers, rule, *cells)))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|").replace("\n", "<br>")


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit()


def compared(scenario: str, *algorithms: str) -> Comparison:
    """Replay a scenario of the repository through algorithms, by default those that it names."""
    found = load_scenario(str(ROOT / "scenarios" / f"{scenario}.yaml"))
    kinds = [ALGORITHMS[name] for name in algorithms or found.algorithms]
    return compare(found.quota, found.traffic, kinds, keep_decisions=True)


def chart(comparison: Comparison, name: str) -> None:
    """Show one of ratelab's charts of a comparison."""
    chart_of(draw(comparison, name))


def chart_of(figure: Figure) -> None:
    """Show a chart; its title is its text."""
    file = BytesIO()
    picture = Image.open(BytesIO(render_figure(figure, "png"))).convert("RGB").quantize(INKS)
    picture.save(file, "png", optimize=True)
    told = {"image/png": file.getvalue(), "text/plain": figure.get_label()}
    display(told, raw=True, metadata={"image/png": {"width": 800}})


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: str
    """Without the newline at its end."""


def request(peer: str = "192.0.2.1", path: str = "/ping", **headers: str) -> Scope:
    """Make a request as an ASGI server hands it on; `x_api_key="..."` is the header X-API-Key."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    about = {"type": "http", "method": "GET", "path": path, "client": (peer, 50_000)}
    return {**about, "headers": fields}


async def answered(app: App, scope: Scope) -> Answer:
    """Send an application a request, without a server."""
    sent: list[dict[str, Any]] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    head, *parts = sent
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    return Answer(
        head["status"], headers, b"".join(part["body"] for part in parts).decode().rstrip("\n")
    )


def judge(algorithm: str, step: Callable[..., Any] | str) -> None:
    """Grade a drill's answer, and show the verdict as `ratelab drill` does, with its picture."""
    verdict, told = grade(algorithm, step), StringIO()
    looks: dict[str, Any] = {"force_terminal": True, "color_system": "standard"}
    Console(file=told, width=96, force_jupyter=False, **looks).print(render_verdict(verdict))
    print(told.getvalue().rstrip())
    if verdict.requests:
        chart_of(draw_verdict(verdict))


def ask(number: int) -> None:
    """Show a question and, behind a fold, its answer and what the command prints that backs it."""
    asked = QUESTIONS[number - 1]
    program, *arguments = shlex.split(asked.command)
    said = _output(arguments if program == "python" else ["-m", "ratelab", *arguments])
    evidence = f"{_typed(asked.command)}\n{_evidence(said.splitlines(), asked.evidence)}"
    inside = f"{asked.answer}\n\n```\n{evidence}\n```"
    fold = f"<details><summary>Answer</summary>\n\n{inside}\n\n</details>"
    tell(f"**{number}. {asked.question}**\n\n{fold}")


def _typed(command: str) -> str:
    """Return a command as one types it, in lines that break before an option or a file."""
    words = re.sub(r"(--\S+) (?!-)", "\\1\0", command)  # an option and its value stay together
    whole: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    lines = [command] if "\n" in command else wrap(words, width=76, **whole)
    return "$ " + " \\\n    ".join(lines).replace("\0", " ")


def _evidence(lines: list[str], shows: str) -> str:
    """Return the fewest lines in which `shows` finds something; of many, those of each part."""
    found = _fewest(lines, shows)
    parts = [found] if len(found) <= 9 else [_fewest(found, part) for part in shows.split(" .* ")]
    return "\n".join(["...", *("\n".join([*part, "..."]) for part in parts)])


def _fewest(lines: list[str], shows: str) -> list[str]:
    """Return the fewest lines in a row in which `shows` finds something; all if in none."""
    spans = (
        (begin, size) for size in range(1, len(lines) + 1) for begin in range(len(lines) - size + 1)
    )
    for begin, size in spans:
        part = lines[begin : begin + size]
        if re.search(shows, " ".join(" ".join(part).split())):
            return part
    return lines
