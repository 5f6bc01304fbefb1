"""`ratelab docs`: the list of topics, the pages and unknown topics."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from cli_runner import PLAIN, get_error, get_output
from manual import PAGES

TOPICS = {path.removeprefix("ratelab/docs/").removesuffix(".md"): PAGES[path] for path in list(PAGES)[1:]}


def test_the_list_has_every_topic_with_its_summary_on_one_line() -> None:
    first, blank, *rows = get_output("docs").splitlines()
    assert (first, blank) == ("Pages of the manual; `ratelab docs TOPIC` prints one:", "")
    assert [tuple(row.split(None, 1)) for row in rows] == [
        (topic, text.splitlines()[2]) for topic, text in TOPICS.items()
    ]


def test_the_manual_has_the_pages_that_the_readme_names() -> None:
    named = ["algorithms", "benchmarks", "figures", "glossary", "middleware", "scenarios", "serve", "stores", "traces"]
    assert {*named} <= {*TOPICS}


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_printed_as_it_is_written_in_a_pipe(topic: str) -> None:
    assert get_output("docs", topic) == get_output("docs", topic, "--plain") == TOPICS[topic]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_has_a_title_and_ascii_lines_that_fit_an_editor(topic: str) -> None:
    lines = TOPICS[topic].splitlines()
    assert lines[0].startswith("# ")
    assert (lines[1], lines[3]) == ("", "")
    assert re.fullmatch(r"[A-Z].{20,70}\.", lines[2])
    assert TOPICS[topic].isascii()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", '{"type"'))] == []


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("glosary", "unknown topic 'glosary': did you mean glossary?\n"),
        ("xyz", f"unknown topic 'xyz': choose one of {', '.join(TOPICS)}\n"),
        ("../docs/glossary", "unknown topic '../docs/glossary': did you mean glossary?\n"),
    ],
)
def test_an_unknown_topic_is_one_line_with_the_nearest(topic: str, message: str) -> None:
    assert get_error("docs", topic) == message


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_rendered_page_of_at_most_100_columns() -> None:
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in PLAIN}
    command = [sys.executable, "-m", "ratelab", "docs", "glossary"]
    with subprocess.Popen(command, stdout=theirs, env={**environment, "COLUMNS": "200", "TERM": "xterm"}) as process:
        os.close(theirs)
        output = b""
        while chunk := _read(ours):
            output += chunk
        assert process.wait() == 0
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).splitlines()
    assert max(map(len, lines)) == 100
    assert not any(line.startswith(("# ", "| term")) for line in lines)


def _read(terminal: int) -> bytes:
    """Read from a pseudo-terminal; nothing once its other end is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
