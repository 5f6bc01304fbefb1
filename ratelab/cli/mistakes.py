"""A person's mistakes on the command line, one red line each and exit status 2, and an interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.core import ParameterSource

from ratelab.errors import InputError, shown


class Fault(click.ClickException):
    """A mistake that is told as one red line."""

    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002  (click's signature)
        """Print the message, whatever it holds, on one line."""
        line = "".join(letter if letter.isprintable() else " " for letter in self.message)
        click.secho(f"Error: {line}", fg="red", err=True)


class Interrupted(click.ClickException):
    """An interrupt, with what is to be said of it, and the exit status that shells have for it."""

    exit_code = 130

    def show(self, file: object = None) -> None:  # noqa: ARG002  (click's signature)
        """Print the message on one line."""
        click.echo(self.message, err=True)


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Tell a mistake that click finds as one that ratelab finds; who says nothing at all still gets the help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise Fault(_in_a_line(error)) from error


def unknown_command(name: str, known: list[str]) -> InputError:
    """Say which command may have been meant."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
    return InputError(f"unknown command {shown(name)}: {hint}")


def _in_a_line(error: click.UsageError) -> str:
    text = error.format_message()
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        text = f"{_name_of(error)}: {_against_the_rule(error)}"
    return f"{text.removesuffix('.')}; see {_path_of(error)} --help"


def _path_of(error: click.UsageError) -> str:
    """Return the command that was called, which click does not tell of an option without its value."""
    if error.ctx is not None:
        return error.ctx.command_path
    context = click.get_current_context(silent=True)
    return f"ratelab {(context and context.invoked_subcommand) or ''}".rstrip()


def _name_of(error: click.BadParameter) -> str:
    """Return where the value stands that is refused: in an option, an argument, or a variable of the environment."""
    parameter, context = error.param, error.ctx
    if parameter is None or context is None:
        return error.param_hint if isinstance(error.param_hint, str) else "the command line"
    if context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        return str(parameter.envvar)
    return parameter.get_error_hint(context).strip("'")


def _against_the_rule(error: click.BadParameter) -> str:
    """Return what is wrong, where a number is due in words: `0 is not a whole number >= 1`."""
    kind = error.param.type if error.param else None
    if not isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return error.message
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    allowed = "" if least is None else f" >= {least}" if most is None else f" from {least} to {most}"
    number = "a whole number" if isinstance(kind, click.types.IntParamType) else "a number"
    return f"{error.message.rpartition(' is not ')[0]} is not {number}{allowed}"
