"""Ends of a command: an error in the user's input on one line, Ctrl-C, and an output that its reader has closed."""

from __future__ import annotations

import re
from contextlib import suppress

import click
from click.core import ParameterSource


class UsageError(click.ClickException):
    """An error in the user's input: print one red line and exit with status 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002  (click's signature)
        """Print the message on one line, whatever characters it contains."""
        line = "".join(character if character.isprintable() else " " for character in self.message)
        with suppress(OSError):  # the reader of standard error is gone
            click.secho(f"Error: {line}", fg="red", err=True)


class OutputClosed(click.exceptions.Exit):
    """The reader of the output has closed it, as `head` does: exit as a program that SIGPIPE ends."""

    exit_status = 128 + 13

    def __init__(self) -> None:
        super().__init__(self.exit_status)


class Interrupted(click.ClickException):
    """Ctrl-C: print a message and exit with status 130."""

    exit_code = 130

    def show(self, file: object = None) -> None:  # noqa: ARG002  (click's signature)
        """Print the message."""
        click.echo(self.message, err=True)


def format_usage_error(error: click.UsageError) -> str:
    """Return a usage error of click as one line, with the command whose help describes the arguments."""
    text = error.format_message()
    if isinstance(error, click.NoSuchOption):
        near = f" (did you mean {error.possibilities[0]}?)" if error.possibilities else ""
        text = f"unknown option {error.option_name!r}{near}"
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        text = f"{_name_parameter(error)}: {_describe_bad_value(error)}"
    return f"{hide_passwords(text).removesuffix('.')}; see {_find_command_path(error)} --help"


def _find_command_path(error: click.UsageError) -> str:
    """Return the called command, which click's error lacks for an option without its value."""
    if error.ctx is not None:
        return error.ctx.command_path
    context = click.get_current_context(silent=True)
    return f"ratelab {(context and context.invoked_subcommand) or ''}".rstrip()


def _name_parameter(error: click.BadParameter) -> str:
    """Return the source of an invalid value: an option, an argument or an environment variable."""
    parameter, context = error.param, error.ctx
    if parameter is None or context is None:
        return error.param_hint if isinstance(error.param_hint, str) else "the command line"
    if context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        return str(parameter.envvar)
    return parameter.get_error_hint(context).strip("'")


def _describe_bad_value(error: click.BadParameter) -> str:
    """Describe an invalid value; for a number, state the rule: `0 is not a whole number >= 1`."""
    kind = error.param.type if error.param else None
    if not isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return error.message
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    allowed = "" if low is None else f" >= {low}" if high is None else f" from {low} to {high}"
    number = "a whole number" if isinstance(kind, click.types.IntParamType) else "a number"
    return f"{error.message.rpartition(' is not ')[0]} is not {number}{allowed}"


def hide_passwords(text: str) -> str:
    """Replace the passwords of URLs in arguments."""
    return re.sub(r"(://[^\s/:@]*):[^\s@]*@", r"\1:***@", text)
