"""`ratelab docs`: the list of topics, the pages and unknown topics."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from cli_runner import PLAIN, get_error, get_output
from manual import PAGES
from rich.console import Console

from ratelab.cli.docs import print_page

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


def printed(topic: str, width: int) -> str:
    file = io.StringIO()
    print_page(TOPICS[topic], Console(file=file, width=width, color_system=None))
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("topic", ["django", "fastapi", "flask", "testing", "wsgi"])
def test_no_cell_of_a_table_is_cut_off(topic: str, width: int) -> None:
    page = printed(topic, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in page
    assert max(map(len, page.splitlines())) <= width


def test_words_of_a_table_are_whole_where_they_fit() -> None:
    assert 'blueprint.before_request(limit("100/minute").check)' in printed("flask", 80)
    assert "in memory, in pytest with this plugin   does not move it  does not move it" in printed("testing", 80)


@pytest.mark.parametrize("topic", ["django", "fastapi", "wsgi"])
def test_code_can_be_copied_from_a_wide_terminal(topic: str) -> None:
    page = "\n".join(line.rstrip() for line in printed(topic, 140).splitlines())
    for code in re.findall(r"^```\w+\n(.*?)\n```", TOPICS[topic], re.DOTALL | re.MULTILINE):
        assert f"\n{code}\n" in page


def _read(terminal: int) -> bytes:
    """Read from a pseudo-terminal; nothing once its other end is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
