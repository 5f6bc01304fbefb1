"""README and manual: their pages, code blocks and commands, and a workspace to run them in."""

from __future__ import annotations

import gzip
import re
import shlex
import sys
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
from cli_runner import POLICY_SCENARIOS, without_announcements
from click.testing import CliRunner, Result

from ratelab.cli import ratelab_command

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "ratelab" / "docs").glob("*.md")))
}
"""The text of each page, by its path from the project root; README.md first."""

COMPARED = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter")
"""The algorithms in the output on the pages, which a further built-in algorithm does not change."""

ENVIRONMENT = {"COLUMNS": "80", "FORCE_COLOR": None, "NO_COLOR": None, "TERM": "dumb"}


class Block(NamedTuple):
    """A fenced code block."""

    page: str
    language: str
    text: str


class Command(NamedTuple):
    """A `ratelab` command of a shell block or a console session."""

    page: str
    text: str
    """The command as written, without its comment."""
    variables: dict[str, str]
    arguments: tuple[str, ...]
    target: str
    """The file that standard output is redirected to, or an empty string."""

    def __str__(self) -> str:
        """Return the command for the name of a test."""
        return f"{self.page}: {self.text}"


def blocks(language: str) -> list[Block]:
    """Return the code blocks in a language, in the order of the pages."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [Block(page, language, text) for page, whole in PAGES.items() for text in pattern.findall(whole)]


def block(language: str, part: str) -> str:
    """Return the text of the only code block that contains `part`, wherever it stands first."""
    return next(one.text for one in blocks(language) if part in one.text)


def command_of(page: str, line: str) -> Command | None:
    """Parse a line of a shell; None if it does not run `ratelab`."""
    text = line.partition("  #")[0].strip()
    last, _, target = text.rpartition("| ")[2].partition(" > ")
    words = shlex.split(last, comments=True)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    arguments = words[len(variables) :]
    if arguments[:1] != ["ratelab"]:
        return None
    return Command(page, text, variables, tuple(arguments[1:]), target)


def commands() -> list[Command]:
    """Return the `ratelab` commands of all shell blocks."""
    found = [command_of(one.page, line) for one in blocks("sh") for line in one.text.splitlines()]
    return [command for command in found if command]


def sessions() -> dict[str, list[tuple[str, str]]]:
    """Return the commands of the console blocks of each page, each with the output shown."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in blocks("console"):
        for part in one.text.removeprefix("$ ").split("\n$ "):
            command, _, output = part.partition("\n")
            found.setdefault(one.page, []).append((command, output.rstrip("\n")))
    return found


def run(command: Command, folder: Path, stdin: bytes = b"") -> Result:
    """Run a command in a folder, with its patterns expanded and its output redirected as a shell would."""
    with chdir(folder):
        arguments = [
            part
            for word in command.arguments
            for part in (sorted(map(str, Path().glob(word))) if "*" in word and "**" not in word else []) or [word]
        ]
        runner = CliRunner(env={**ENVIRONMENT, **command.variables})
        with without_announcements():
            result = runner.invoke(ratelab_command, arguments, input=stdin, prog_name="ratelab")
        if command.target:
            Path(command.target).write_text(result.stdout, encoding="utf-8")
    return result


def output_of(page: str, line: str, folder: Path) -> str:
    """Run a command of a console session, and return the output as the page shows it."""
    command = command_of(page, line)
    assert command is not None, line
    name, *options = command.arguments
    has_policies = "--policies" in options or any(path.name in line for path in POLICY_SCENARIOS)
    names_algorithms = has_policies or "clients-that-retry" in line
    if name in ("simulate", "replay", "sweep") and "--algo" not in options and not names_algorithms:
        named = [word for algorithm in COMPARED for word in ("--algo", algorithm)]
        command = command._replace(arguments=(*command.arguments, *named))
    return "\n".join(text.rstrip() for text in run(command, folder).output.splitlines())


def fill_workspace(folder: Path) -> None:
    """Write the files that the commands of the pages read."""
    (folder / "scenarios").symlink_to(ROOT / "scenarios")
    (folder / "cooldown.py").write_text(block("python", "class Cooldown"), encoding="utf-8")
    (folder / "hasty.py").write_text(block("python", "class Hasty"), encoding="utf-8")
    (folder / "adapter.py").write_text(block("python", "def factory(limit, period, burst)"), encoding="utf-8")
    for name, part in (("policies.yaml", "name: global"), ("llm.yaml", "name: output")):
        (folder / name).write_text(block("yaml", part), encoding="utf-8")
    sample = command_of("", "ratelab sample access.log --lines 300 --clients 10 --rate 10/s")
    assert sample is not None
    run(sample, folder)
    log = (folder / "access.log").read_bytes().replace(b" - - [", b" - alice [")
    (folder / "access.log").write_bytes(log)
    (folder / "access.log.1.gz").write_bytes(gzip.compress(log))
    (folder / "logs").mkdir()
    (folder / "logs" / "a.log").write_bytes(log)
    rows = [(f"client-{number % 3}", 1_500_000_000 + number, 1 + number % 2) for number in range(30)]
    (folder / "requests.jsonl").write_text(
        "".join(
            f'{{"user": {{"id": "{client}"}}, "started_at": {time}, "tokens": {cost}}}\n' for client, time, cost in rows
        )
    )
    lines = [f"2017-07-14T02:40:{number:02}Z 192.0.2.{number % 3} /a 200\n" for number in range(30)]
    (folder / "app.log").write_text("".join(lines))
    csv = "".join(["api_key,started\n", *(f"{client},{time}000\n" for client, time, _ in rows)])
    (folder / "requests.csv").write_text(csv)
    columns = {"api_key": [client for client, _, _ in rows], "time": [time for _, time, _ in rows]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "requests.parquet")


def update_sessions(folder: Path) -> None:
    """Write the current output of every console session into its page."""
    fill_workspace(folder)
    for page, found in sessions().items():
        text = PAGES[page]
        for line, output in found:
            before = f"$ {line}\n{output}\n" if output else f"$ {line}\n"
            now = output_of(page, line, folder)
            assert text.count(before) >= 1, before
            text = text.replace(before, f"$ {line}\n{now}\n" if now else f"$ {line}\n", 1)
        (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    if sys.argv[1:] != ["--update"]:
        sys.exit(
            "usage: python tests/support/manual.py --update   (write the current output into the console sessions)"
        )
    with TemporaryDirectory() as workspace:
        update_sessions(Path(workspace))
