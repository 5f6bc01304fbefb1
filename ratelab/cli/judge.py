"""`ratelab judge`: the promises of any limiter, checked on a fake clock."""

from __future__ import annotations

import json
from typing import IO

import click

import ratelab
from ratelab.cli.artifacts import format_command
from ratelab.cli.output import LateProgress, check_distinct, create_console
from ratelab.errors import InputError
from ratelab.judge import PROMISES, Judgement, check_promises, find_factory
from ratelab.judge import judge as judge_candidate
from ratelab.report.files import check_writable, write_text
from ratelab.report.html.page import Provenance
from ratelab.report.judgement import render_judgement, render_judgement_page, render_markdown

STANDARD_OUTPUT = "-"


@click.command()
@click.argument("target", metavar="TARGET")
@click.option(
    "--promise",
    "promises",
    multiple=True,
    metavar="NAME",
    help=f"Check only this promise; repeatable. One of {', '.join(PROMISES)}.",
)
@click.option("--on-store", is_flag=True, help="Check all promises on the limiters of FACTORY.store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--html", "html_file", metavar="FILE", help="Write a page, too.")
@click.option(
    "--markdown",
    "markdown_file",
    is_flag=False,
    flag_value=STANDARD_OUTPUT,
    metavar="[FILE]",
    help="Write a badge and a table as Markdown; without FILE, print them instead of a table.",
)
@click.pass_context
def judge(
    context: click.Context,
    target: str,
    promises: tuple[str, ...],
    on_store: bool,
    as_json: bool,
    html_file: str | None,
    markdown_file: str | None,
) -> None:
    """Check nine promises of a limiter on a fake clock: TARGET is MODULE:FACTORY or FILE.py:FACTORY.

    FACTORY(limit, period, burst) returns a function or a coroutine function hit(key), which returns
    (allowed, retry_after), in seconds. TARGET may also be a built-in algorithm, such as token-bucket.

    \b
      ratelab judge my_adapter.py:factory
      ratelab judge my_adapter.py:factory --promise wait --json

    The exit status is 0 if no promise is broken, 1 if one is, and 2 for an invalid target. `ratelab docs judge` defines
    the promises.
    """  # noqa: D301  (click's mark for a block)
    if as_json and markdown_file == STANDARD_OUTPUT:
        raise InputError("--json and --markdown must not both print: give --markdown a file")
    names = check_promises(promises)
    find_factory(target)
    files = [html_file, None if markdown_file == STANDARD_OUTPUT else markdown_file]
    check_distinct([target.rpartition(":")[0]], files)
    for path in files:
        if path is not None:
            check_writable(path)
    with LateProgress("judging", len(names)) as progress:
        started = False

        def count(_: str) -> None:
            nonlocal started
            progress(int(started))  # the promise before this one is done
            started = True

        judgement = judge_candidate(target, names, on_store=on_store, progress=count)
    _write(judgement, as_json, html_file, markdown_file)
    if judgement.is_broken:
        context.exit(1)


def _write(judgement: Judgement, as_json: bool, html_file: str | None, markdown_file: str | None) -> None:
    """Write the judgement in the forms that were asked for."""
    if html_file is not None:
        provenance = Provenance(format_command(click.get_current_context()), ratelab.__version__)
        _write_file(html_file, render_judgement_page(judgement, provenance))
    markdown = render_markdown(judgement)
    if markdown_file not in (None, STANDARD_OUTPUT):
        _write_file(str(markdown_file), markdown)
    if as_json:
        click.echo(json.dumps(judgement.as_object(), ensure_ascii=False))
    elif markdown_file == STANDARD_OUTPUT:
        click.echo(markdown, nl=False)
    else:
        create_console().print(render_judgement(judgement))


def _write_file(path: str, text: str) -> None:
    def write(file: IO[str]) -> None:
        file.write(text)

    write_text(path, write)
