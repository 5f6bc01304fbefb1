"""`ratelab drill`: write an algorithm's `step` yourself and have it graded; questions to be asked."""

from __future__ import annotations

from pathlib import Path

import click

from ratelab.cli.options import PLOT, THEME
from ratelab.errors import InputError


@click.command()
@click.argument("algorithm", required=False, metavar="[ALGO]")
@click.argument("answer", required=False, metavar="[ANSWER.py]")
@click.option("--questions", is_flag=True, help="Print ten questions that interviewers ask.")
@click.option("--answers", is_flag=True, help="Print them with their answers, and a command that shows each.")
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
    """Print what to write for ALGO, or grade ANSWER.py, which defines `step` for it.

    \b
      ratelab drill                              what there is to practise
      ratelab drill token-bucket > answer.py     a file to begin with
      ratelab drill token-bucket answer.py       the verdict; exit status 1 if it is not right

    --plot draws the shortest timeline on which it fails.
    """  # noqa: D301  (click's mark for a block)
    if answer is None and (plot or theme):
        raise InputError("--plot and --theme are for what a verdict shows: name ANSWER.py, too")
    if questions or answers:
        if algorithm is not None:
            raise InputError(f"the questions are not about one algorithm: leave out {algorithm}, or the option")
        _ask(answers)
    elif algorithm is None:
        _list()
    elif answer is None:
        from ratelab.algorithms import find
        from ratelab.learn.drill import task

        click.echo(task(find(algorithm)), nl=False)
    else:
        ctx.exit(0 if _grade(algorithm, answer, plot, theme) else 1)


def _grade(algorithm: str, path: str, plot: tuple[str, ...], theme: str | None) -> bool:
    from ratelab.cli.output import check_apart, console_of_80
    from ratelab.cli.pictures import pictures_named, write_picture
    from ratelab.learn.chart import draw_verdict
    from ratelab.learn.drill import grade
    from ratelab.learn.verdict import graded
    from ratelab.report.charts import THEMES

    pictures = pictures_named(plot, theme, algorithm)
    check_apart([path], pictures)
    try:
        source = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): begin with ratelab drill {algorithm} > {path}") from None
    verdict = grade(algorithm, source)
    console = console_of_80()
    console.print(graded(verdict))
    for picture in pictures:
        if verdict.rows:
            write_picture(picture, draw_verdict(verdict, theme or THEMES[0]))
        else:
            console.print(f"\n{picture} is not written: there is no timeline to draw.", markup=False)
    return verdict.right


def _list() -> None:
    from ratelab.algorithms import ALGORITHMS

    click.echo("Write the step of one of these:\n")
    for name in ALGORITHMS:
        click.echo(f"  ratelab drill {name} > answer.py")
    click.echo("\nand have it graded: ratelab drill NAME answer.py. To be asked: ratelab drill --questions")


def _ask(answers: bool) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from ratelab.cli.output import console_of_80
    from ratelab.learn.questions import QUESTIONS

    console = console_of_80()
    for number, one in enumerate(QUESTIONS, 1):
        console.print(f"{number}. {one.question}", style="bold", markup=False)
        if answers:
            console.print(Padding(Text(one.answer), (0, 0, 0, 3)))
            console.print(f"   $ {one.command}\n", style="dim", markup=False, soft_wrap=True)
    if answers:
        console.print("The commands are for a clone of the repository, where the scenarios are.")
