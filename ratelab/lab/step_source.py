"""Source of a step as a syntax tree, and back."""

from __future__ import annotations

import ast
from collections.abc import Callable
from inspect import getfile, getsourcelines
from textwrap import dedent
from typing import Any


class UnfitError(Exception):
    """Compiled code cannot replay an algorithm as plain Python would; the message is the reason."""


def parse_step(step: Callable[..., Any]) -> ast.FunctionDef:
    """Return the definition of `step`, with the line numbers of its file, without docstring and annotations.

    Raises `OSError` if there is no source.
    """
    lines, first = getsourcelines(step)
    definition = ast.parse(dedent("".join(lines))).body[0]
    assert isinstance(definition, ast.FunctionDef)  # noqa: S101  (nothing else has source lines)
    ast.increment_lineno(definition, first - 1)
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    if ast.get_docstring(definition) is not None:
        del definition.body[0]
    return definition


def define_step(tree: ast.AST, step: Callable[..., Any], names: dict[str, Any]) -> Callable[..., Any]:
    """Return the function that `tree` defines, with the globals of the original `step` and further `names`."""
    module = ast.fix_missing_locations(ast.Module([tree], []))  # type: ignore[list-item]
    known = {**step.__globals__, **names}
    exec(compile(module, getfile(step), "exec", dont_inherit=True), known)  # noqa: S102  (a step that is to run anyway)
    function: Callable[..., Any] = known[step.__name__]
    return function
