"""A step's text as a tree, and back."""

from __future__ import annotations

import ast
from collections.abc import Callable
from inspect import getfile, getsourcelines
from textwrap import dedent
from typing import Any


def tree_of(step: Callable[..., Any]) -> ast.FunctionDef:
    """Return the definition of `step`, its lines numbered as in its file, without docstring and annotations.

    Raises `OSError` if there is no source.
    """
    lines, first = getsourcelines(step)
    definition = ast.parse(dedent("".join(lines))).body[0]
    assert isinstance(definition, ast.FunctionDef)  # noqa: S101  (what else would have a source)
    ast.increment_lineno(definition, first - 1)
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    if ast.get_docstring(definition) is not None:
        del definition.body[0]
    return definition


def function_of(tree: ast.AST, step: Callable[..., Any], names: dict[str, Any]) -> Callable[..., Any]:
    """Return what `tree`, made from the definition of `step`, defines where `names` are known, too."""
    module = ast.fix_missing_locations(ast.Module([tree], []))  # type: ignore[list-item]
    known = {**step.__globals__, **names}
    exec(compile(module, getfile(step), "exec", dont_inherit=True), known)  # noqa: S102  (what would be called anyway)
    function: Callable[..., Any] = known[step.__name__]
    return function
