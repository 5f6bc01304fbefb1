"""The command line: parse, call, print."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TextIO
from warnings import catch_warnings, formatwarning

import click
from click.core import ParameterSource

import ratelab
from ratelab.errors import InputError, SlowWarning, short_repr


class UsageError(click.ClickException):
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
def one_line_errors() -> Iterator[None]:
    """Tell a mistake that click finds as one that ratelab finds; who says nothing at all still gets the help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise UsageError(_in_a_line(error)) from error


def unknown_command(name: str, known: list[str]) -> InputError:
    """Say which command may have been meant."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known)}"
    return InputError(f"unknown command {short_repr(name)}: {hint}")


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


COMMANDS = {
    "simulate": "Replay written scenarios through every algorithm.",
    "replay": "Replay recorded traffic: what would a limit have done to it?",
    "sweep": "Try many quotas on the same traffic: how much would each deny?",
    "watch": "Watch a scenario play in the terminal.",
    "sample": "Write a synthetic access log, to try things on.",
    "serve": "Serve a live /ping behind an algorithm.",
    "verify": "Hold a live endpoint to what the simulation says.",
    "algorithms": "List the algorithms: what each means, remembers and promises.",
    "explain": "Explain an algorithm: idea, source, a worked timeline, what to say.",
    "drill": "Write an algorithm's step yourself and have it graded.",
    "docs": "Print a page of the manual.",
}
"""What each command does, in the order of the help, which imports none of them."""


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001  (the signature of warnings.showwarning)
    line: str | None = None,
) -> None:
    """Print a warning: one for whoever runs the program as one line, any other as Python does."""
    if issubclass(category, SlowWarning):
        click.secho(f"Warning: {message}", fg="yellow", err=True)
    else:
        click.echo(formatwarning(message, category, filename, lineno, line), nl=False, err=True)


class Commands(click.Group):
    """A group whose commands are imported when they are called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command from the module of its name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"ratelab.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands and what each does."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called for; suggest the nearest if there is none."""
        if args[0] not in COMMANDS:
            raise unknown_command(args[0], list(COMMANDS))
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read what stands before the command."""
        with one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; tell a person's mistake in one line, and let any other error show itself."""
        try:
            with one_line_errors(), catch_warnings():
                warnings.showwarning = _show
                result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except InputError as error:
            raise UsageError(str(error)) from error
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UsageError(f"the output cannot be written: {error.strerror}") from error
        return result


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(ratelab.__version__, prog_name="ratelab")
def ratelab_command() -> None:
    """Choose, prove and ship a rate limit: one definition of each algorithm for simulation, replay and service."""


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name outside the terminal's alphabet is no reason to fail
    ratelab_command(prog_name="ratelab")
