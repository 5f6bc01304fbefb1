"""A function made again from its own source with one thing changed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import getsource
from textwrap import dedent
from typing import Any


def rewritten(function: Callable[..., Any], right: str, wrong: str) -> Any:
    """Make `function` again with `wrong` written where it says `right`."""
    source = dedent(getsource(function))
    assert right in source, f"{function.__qualname__} no longer says {right!r}: bring this mutant up to date"
    names = dict(vars(sys.modules[function.__module__]))
    exec(source.replace(right, wrong), names)  # noqa: S102  (our own source, one thing changed)
    return names[function.__name__]
