"""Catalogue of algorithms: meaning, state and guarantee, read from the classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ratelab.algorithms import build_policy, traits_of
from ratelab.algorithms.plugins import attribute_errors
from ratelab.errors import InputError
from ratelab.limiter import Algorithm
from ratelab.quota import Quota, about
from ratelab.report.numbers import format_quota, pluralize

MIN_TABLE_COLUMNS = 80
"""Width from which on there is room for a table."""


class AlgorithmEntry(NamedTuple):
    """The description of an algorithm that its class provides."""

    algorithm: str
    meaning: str
    """The meaning of rate and burst: the first paragraph of the docstring."""
    remembers: str
    """The names of the numbers in a key's state."""
    state_bytes_per_key: int | None
    """Eight bytes for each number; None if the algorithm rejects the quota."""
    at_most: str
    """The largest cost that can be admitted in a window of burst / rate."""


def describe_algorithm(algorithm: type[Algorithm], quota: Quota) -> AlgorithmEntry:
    """Return the entry of an algorithm, with the size of its state under `quota`."""
    with attribute_errors(algorithm):
        size = _measure_state(algorithm, quota)
    summary = (inspect.getdoc(algorithm) or "(no docstring)").split("\n\n")[0]
    return AlgorithmEntry(
        algorithm.name,
        " ".join(summary.split()).replace("`", ""),
        ", ".join(traits_of(algorithm).state) or "not stated",
        size,
        _format_bound(traits_of(algorithm).at_most),
    )


def render_catalogue(entries: Sequence[AlgorithmEntry], quota: Quota, width: int = 80) -> RenderableType:
    """Render the entries for the terminal: as a table, or below `MIN_TABLE_COLUMNS` as a block for each."""
    terms = f"bytes and window ({about(quota.window)}) at {format_quota(quota)}"
    note = f"at most: guaranteed for any window of burst / rate; {terms}"
    if width < MIN_TABLE_COLUMNS:
        blocks = [line for entry in entries for line in _render_block(entry)]
        return Group(*blocks, Text(note, style="dim italic"))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", width=width)
    table.add_column("algorithm", no_wrap=True)
    table.add_column("meaning of rate and burst", ratio=6)
    table.add_column("state of a key", ratio=4)
    table.add_column("bytes", justify="right")
    table.add_column("at most", no_wrap=True)
    for entry in entries:
        table.add_row(
            entry.algorithm, escape(entry.meaning), escape(entry.remembers), _format_size(entry), entry.at_most
        )
    table.caption = note
    table.caption_justify = "left"
    return table


def _render_block(entry: AlgorithmEntry) -> Iterator[RenderableType]:
    yield Text(entry.algorithm, style="bold")
    yield Padding(Text(entry.meaning), (0, 0, 0, 2))
    yield Padding(Text(f"state of a key: {entry.remembers} ({_format_size(entry)} bytes)"), (0, 0, 0, 2))
    yield Padding(Text(f"at most: {entry.at_most}"), (0, 0, 1, 2))


def _format_size(entry: AlgorithmEntry) -> str:
    return "-" if entry.state_bytes_per_key is None else f"{entry.state_bytes_per_key:,}"


def _measure_state(algorithm: type[Algorithm], quota: Quota) -> int | None:
    try:
        algorithm.from_quota(quota)
    except InputError:
        return None
    return 8 * len(build_policy(algorithm, quota).start(0))


def _format_bound(at_most: tuple[int, int] | None) -> str:
    if at_most is None:
        return "not stated"
    factor, extra = at_most
    sign = f" + {pluralize(extra, 'request')}" if extra > 0 else f" - {-extra}" if extra < 0 else ""
    return f"{f'{factor}x ' if factor > 1 else ''}burst{sign}"
