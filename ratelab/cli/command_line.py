"""What was typed, as it can be typed again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource


def command_line(context: click.Context) -> str:
    """Return the command of `context` with the options that were given it, each written out."""
    return shlex.join(["ratelab", str(context.info_name), *_words(context)])


def _words(context: click.Context) -> Iterator[str]:
    """Yield the arguments, then the options."""
    parameters = sorted(context.command.params, key=lambda one: isinstance(one, click.Option))
    for parameter in parameters:
        name = str(parameter.name)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value: Any = context.params[name]
            values = value if isinstance(value, tuple) else (value,)
            if not isinstance(parameter, click.Option):
                yield from map(str, values)
            elif parameter.is_flag:
                yield parameter.opts[0]
            else:
                yield from (word for one in values for word in (parameter.opts[0], str(one)))
