"""Command `ratelab drill`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ratelab.algorithms import ALGORITHMS, find
from ratelab.cli.artifacts import resolve_images, write_image
from ratelab.cli.options import PLOT, THEME
from ratelab.cli.output import check_distinct, create_console
from ratelab.errors import InputError, format_reason
from ratelab.learn.drill import exercise, grade
from ratelab.learn.questions import QUESTIONS
from ratelab.learn.verdict import render_verdict
from ratelab.report.charts import THEME_NAMES


@click.command()
@click.argument("algorithm", required=False, metavar="[ALGO]")
@click.argument("answer", required=False, metavar="[ANSWER.py]")
@click.option("--questions", is_flag=True, help="Print ten interview questions.")
@click.option("--answers", is_flag=True, help="Print the questions with answers, and a command that proves each.")
@PLOT
@THEME
@click.pass_context
def drill(
    ctx: click.Context,
    algorithm: str | None,
    answer: str | None,
    questions: bool,
    answers: bool,
    plot: tuple[str, ...],
    theme: str | None,
) -> None:
    """Print an exercise, the `step` of ALGO to complete, or grade ANSWER.py, which defines `step`.

    \b
      ratelab drill                              list the exercises
      ratelab drill token-bucket > answer.py     get the file to complete
      ratelab drill token-bucket answer.py       grade it; exit status 1 if it is not correct

    --plot draws the shortest failing timeline.
    """  # noqa: D301  (click's mark for a block)
    if answer is None and (plot or theme):
        raise InputError("--plot and --theme need a graded file: name ANSWER.py, too")
    if questions or answers:
        if algorithm is not None:
            raise InputError(f"the questions cover all algorithms: leave out {algorithm}, or the option")
        _print_questions(answers)
    elif algorithm is None:
        _list_exercises()
    elif answer is None:
        click.echo(exercise(find(algorithm)), nl=False)
    else:
        ctx.exit(0 if _grade(algorithm, answer, plot, theme) else 1)


def _grade(algorithm: str, path: str, plot: tuple[str, ...], theme: str | None) -> bool:
    """Grade the file, print the verdict and draw the images; return whether the file is correct."""
    images = resolve_images(plot, theme, None, algorithm)
    check_distinct([path], images)
    try:
        source = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = format_reason(error)
        raise InputError(f"cannot read {path} ({reason}): start with ratelab drill {algorithm} > {path}") from None
    verdict = grade(algorithm, source)
    console = create_console()
    console.print(render_verdict(verdict))
    for image in images:
        if verdict.requests:
            from ratelab.learn.chart import draw_verdict  # imports matplotlib

            write_image(image, draw_verdict(verdict, theme or THEME_NAMES[0]))
        else:
            console.print(f"\nDid not write {image}: no timeline to draw.", markup=False)
    return verdict.correct


def _list_exercises() -> None:
    click.echo("Write the step of an algorithm:\n")
    for name in ALGORITHMS:
        click.echo(f"  ratelab drill {name} > answer.py")
    click.echo("\nThen grade it: ratelab drill NAME answer.py. For interview questions: ratelab drill --questions")


def _print_questions(with_answers: bool) -> None:
    console = create_console()
    for number, entry in enumerate(QUESTIONS, 1):
        question = Table.grid(padding=(0, 1))
        question.add_row(f"{number}.".ljust(3), Text(entry.question), style="bold")
        console.print(question)
        if with_answers:
            console.print(Padding(Text(entry.answer), (0, 0, 0, 4)))
            console.print(f"    $ {entry.command}\n", style="dim", markup=False, soft_wrap=True)
    if with_answers:
        console.print("Run the commands in a clone of the repository, which contains the scenarios.")
