"""The `ratelab` command: a group of lazily imported commands, with one-line errors and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from difflib import get_close_matches
from glob import glob, has_magic
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, TextIO
from warnings import catch_warnings, formatwarning

import click

import ratelab
from ratelab.cli.usage_errors import Interrupted, OutputClosed, UsageError, format_usage_error, hide_passwords
from ratelab.errors import InputError, ResourceError, SlowWarning, format_reason, short_repr

COMMANDS = {
    "tune": "Find the limit that fits your traffic.",
    "simulate": "Replay scenarios through each algorithm.",
    "compare": "Compare two scenarios side by side.",
    "replay": "Replay recorded traffic: what would a limit have done to it?",
    "sweep": "Try many quotas on the same traffic: how much would each deny?",
    "diff": "Compare two limits on the same traffic: whom would the new one deny?",
    "watch": "Play a scenario in the terminal.",
    "formats": "List the formats of logs that can be read.",
    "sample": "Write a synthetic access log to try the other commands on.",
    "serve": "Serve /ping behind a rate limiter.",
    "policies": "Check a policy file and print its limits in words.",
    "keys": "List the most limited clients of a service; show or reset one.",
    "verify": "Compare a live endpoint with the simulation.",
    "judge": "Check the promises of any limiter on a fake clock.",
    "algorithms": "List the algorithms: meaning, state and guarantee.",
    "explain": "Explain an algorithm: idea, source and a worked example.",
    "prove": "Prove or refute the promises of an algorithm for all times.",
    "drill": "Write the step of an algorithm yourself and have it graded.",
    "docs": "Print a page of the manual.",
}
"""Summaries of the commands in the order of the help, which imports no command."""

OLD_SPELLINGS = {"equalise": "equalize"}
"""Former names of options, which are accepted but not listed in the help."""

CLEANUP_TIMEOUT_S = 5
"""Seconds that a command has to remove its temporary files after SIGTERM."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command from the module of the same name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"ratelab.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands and their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the called command; suggest the most similar one if it is unknown."""
        if args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
            raise InputError(f"unknown command {short_repr(args[0])}: {hint}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            _reject_repeated_options(command, rest, ctx)
        return name, command, rest

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options in front of the command."""
        with _one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; print errors in the user's input as one line, and let bugs show their traceback."""
        try:
            with _one_line_errors(), catch_warnings():
                warnings.showwarning = _show_warning
                result = super().invoke(ctx)
                if sys.stdout is not None:
                    sys.stdout.flush()
        except (InputError, ResourceError) as error:
            raise UsageError(str(error)) from error
        except KeyboardInterrupt:
            raise Interrupted("interrupted") from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UsageError(f"the output cannot be written: {error.strerror}") from error
        return result


def normalize_option(name: str) -> str:
    """Return the current name of an option."""
    return OLD_SPELLINGS.get(name, name)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": normalize_option},
)
@click.version_option(ratelab.__version__, prog_name="ratelab")
def ratelab_command() -> None:
    """Choose, test and run a rate limit; simulation, replay and service share one definition of each algorithm."""


def main() -> None:
    """Run the command line."""
    _open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # the terminal's encoding may not have all characters of a name
    try:
        with _clean_up_when_terminated():
            ratelab_command(prog_name="ratelab")
    except SystemExit as end:
        if end.code == OutputClosed.exit_status:
            _discard_output()
        raise


def _reject_repeated_options(command: click.Command, args: Sequence[str], parent: click.Context) -> None:
    """Reject a second value of an option that holds one, of which click would keep only the last.

    Other errors in `args` are left to the command.
    """
    options = [copy(option) for option in command.params if isinstance(option, click.Option)]
    single = [option for option in options if not (option.multiple or option.is_flag or option.count)]
    for option in single:
        option.multiple = True  # the parser collects all values
    probe = click.Command(command.name, params=[*options])
    context = click.Context(probe, parent=parent)
    try:
        values, _, _ = probe.make_parser(context).parse_args([*args])
    except click.UsageError:
        return
    for option in single:
        given = values.get(str(option.name)) or ()
        if len(given) > 1:
            shown = hide_passwords(", ".join(map(repr, given)))
            raise InputError(f"{option.opts[0]} can be given once, got {shown}: keep one of them")


def expand_paths(paths: Sequence[str]) -> list[str]:
    """Return the files that arguments name, each once; `*`, `?`, `[]` and `**` match paths, which are sorted.

    Raises `InputError` for a pattern that matches nothing.
    """
    files: dict[str, None] = {}
    for path in paths:
        is_pattern = has_magic(path) and not Path(path).exists()
        matches = _match_paths(path) if is_pattern else [path]
        if not matches:
            raise InputError(f"no file matches {path}: check the pattern")
        files |= dict.fromkeys(matches)
    return list(files)


def _match_paths(pattern: str) -> list[str]:
    """Return the local or remote paths that match a pattern, sorted."""
    if "://" not in pattern:
        return sorted(glob(pattern, recursive=True))  # noqa: PTH207  (a path may be absolute)
    from ratelab.lab.traces.files import check_remote_readable, is_remote  # only for remote files

    if not is_remote(pattern):
        return []
    check_remote_readable(pattern)
    from ratelab.lab.filesystems import match_paths

    try:
        return match_paths(pattern)
    except OSError as error:
        raise InputError(f"{pattern} cannot be listed ({format_reason(error)}): check the address") from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001  (the signature of warnings.showwarning)
    line: str | None = None,
) -> None:
    """Print a `SlowWarning`, which is meant for users, as one line, and any other warning as Python does."""
    if issubclass(category, SlowWarning):
        click.secho(f"Warning: {message}", fg="yellow", err=True)
    else:
        click.echo(formatwarning(message, category, filename, lineno, line), nl=False, err=True)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Convert click's usage errors to `UsageError`, except a command line without arguments, which gets the help.

    Convert the error of an output that its reader has closed to `OutputClosed`.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed from error
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        raise UsageError(format_usage_error(error)) from error


# --- the process: its standard descriptors, and its end by a signal


def _open_standard_descriptors() -> None:
    """Open closed standard descriptors on the null device, so that no socket gets their numbers; libuv aborts then."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


class Terminated(BaseException):
    """SIGTERM or SIGHUP: an exception, so that temporary files are removed and the terminal is restored."""


@contextmanager
def _clean_up_when_terminated() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM and SIGHUP, and then end with the usual status of the signal.

    A signal that is ignored, as by nohup, stays ignored. A second signal ends the program at once, and so does a
    cleanup that takes more than `CLEANUP_TIMEOUT_S`. Python drops an exception that a handler raises within a
    finalizer or the callback of a weak reference: it is raised again a moment later, and so is a dropped Ctrl-C.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    received: list[int] = []

    def terminate(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_DFL)
        received.append(number)
        if hasattr(signal, "alarm"):
            signal.alarm(CLEANUP_TIMEOUT_S)
        raise Terminated

    report_unraisable = sys.unraisablehook

    def raise_again(dropped: sys.UnraisableHookArgs) -> None:
        if not (hasattr(signal, "setitimer") and issubclass(dropped.exc_type, (Terminated, KeyboardInterrupt))):
            report_unraisable(dropped)
            return
        error = dropped.exc_type

        def interrupt(_: int, frame: FrameType | None) -> None:
            while frame is not None and frame.f_code is not raise_again.__code__:
                frame = frame.f_back
            if frame is not None:  # after a stall: raised in here, the exception would be dropped again
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                return
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if error is Terminated:
                signal.alarm(CLEANUP_TIMEOUT_S)
            raise error

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    for number in handled:
        signal.signal(number, terminate)
    sys.unraisablehook = raise_again
    try:
        yield
    except Terminated:
        os.kill(os.getpid(), received[0])
        raise SystemExit(128 + received[0]) from None  # the process with ID 1 ignores the signal
    finally:
        sys.unraisablehook = report_unraisable


def _discard_output() -> None:
    """Let the rest of the output, whose reader is gone, go nowhere: Python would report an error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(null, stream.fileno())
