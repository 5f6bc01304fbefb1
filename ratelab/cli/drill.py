"""Command `ratelab drill`."""

from __future__ import annotations

from pathlib import Path

import click

from ratelab.cli.options import PLOT, THEME
from ratelab.errors import InputError


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
        from ratelab.algorithms import find
        from ratelab.learn.drill import exercise

        click.echo(exercise(find(algorithm)), nl=False)
    else:
        ctx.exit(0 if _grade(algorithm, answer, plot, theme) else 1)


def _grade(algorithm: str, path: str, plot: tuple[str, ...], theme: str | None) -> bool:
    """Grade the file, print the verdict and draw the pictures; return whether the file is correct."""
    from ratelab.cli.artifacts import resolve_images, write_image
    from ratelab.cli.output import check_distinct, console_of_80
    from ratelab.learn.chart import draw_verdict
    from ratelab.learn.drill import grade
    from ratelab.learn.verdict import render_verdict
    from ratelab.report.charts import THEMES

    pictures = resolve_images(plot, theme, algorithm)
    check_distinct([path], pictures)
    try:
        source = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path} ({reason}): start with ratelab drill {algorithm} > {path}") from None
    verdict = grade(algorithm, source)
    console = console_of_80()
    console.print(render_verdict(verdict))
    for picture in pictures:
        if verdict.requests:
            write_image(picture, draw_verdict(verdict, theme or THEMES[0]))
        else:
            console.print(f"\nDid not write {picture}: no timeline to draw.", markup=False)
    return verdict.correct


def _list_exercises() -> None:
    from ratelab.algorithms import ALGORITHMS

    click.echo("Write the step of an algorithm:\n")
    for name in ALGORITHMS:
        click.echo(f"  ratelab drill {name} > answer.py")
    click.echo("\nThen grade it: ratelab drill NAME answer.py. For interview questions: ratelab drill --questions")


def _print_questions(with_answers: bool) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from ratelab.cli.output import console_of_80
    from ratelab.learn.questions import QUESTIONS

    console = console_of_80()
    for number, one in enumerate(QUESTIONS, 1):
        question = Table.grid(padding=(0, 1))
        question.add_row(f"{number}.".ljust(3), Text(one.question), style="bold")
        console.print(question)
        if with_answers:
            console.print(Padding(Text(one.answer), (0, 0, 0, 4)))
            console.print(f"    $ {one.command}\n", style="dim", markup=False, soft_wrap=True)
    if with_answers:
        console.print("Run the commands in a clone of the repository, which contains the scenarios.")
