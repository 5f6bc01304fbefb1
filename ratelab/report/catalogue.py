"""The algorithms as a table, drawn from the classes themselves."""

from __future__ import annotations

import inspect
from typing import NamedTuple

from rich.markup import escape
from rich.table import Table

from ratelab.algorithms.plugins import attribute_errors
from ratelab.errors import InputError
from ratelab.limiter import Algorithm
from ratelab.quota import Quota, about
from ratelab.report.summary import counted


class AlgorithmEntry(NamedTuple):
    """What a class says of itself."""

    algorithm: str
    meaning: str
    """What rate and burst mean to it: the first paragraph of its docstring."""
    remembers: str
    """The numbers in a key's state."""
    state_bytes_per_key: int | None
    """Eight bytes for each of them; None if it refuses the quota."""
    at_most: str
    """The most cost that it lets out in any window of burst / rate."""


def catalogue(algorithm: type[Algorithm], quota: Quota) -> AlgorithmEntry:
    """Return what `algorithm` says of itself, its state measured for `quota`."""
    with attribute_errors(algorithm):
        size = _state_bytes(algorithm, quota)
    summary = (inspect.getdoc(algorithm) or "(no docstring)").split("\n\n")[0]
    return AlgorithmEntry(
        algorithm.name,
        " ".join(summary.split()).replace("`", ""),
        ", ".join(getattr(algorithm, "remembers", ())) or "not stated",
        size,
        _promise(getattr(algorithm, "at_most", None)),
    )


def catalogue_table(entries: list[AlgorithmEntry], quota: Quota) -> Table:
    """Return the entries as a table of 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", width=80)
    table.add_column("algorithm", no_wrap=True)
    table.add_column("what rate and burst mean to it", ratio=6)
    table.add_column("state of a key", ratio=4)
    table.add_column("bytes", justify="right")
    table.add_column("at most", no_wrap=True)
    for entry in entries:
        size = "-" if entry.state_bytes_per_key is None else f"{entry.state_bytes_per_key:,}"
        table.add_row(entry.algorithm, escape(entry.meaning), escape(entry.remembers), size, entry.at_most)
    table.caption = (
        f"at most: the promise for any window of burst / rate; bytes and window ({about(quota.window)}) at {quota}"
    )
    table.caption_justify = "left"
    return table


def _state_bytes(algorithm: type[Algorithm], quota: Quota) -> int | None:
    try:
        return 8 * len(algorithm.from_quota(quota).start(0))
    except InputError:
        return None


def _promise(at_most: tuple[int, int] | None) -> str:
    if at_most is None:
        return "not stated"
    factor, extra = at_most
    sign = f" + {counted(extra, 'request')}" if extra > 0 else f" - {-extra}" if extra < 0 else ""
    return f"{f'{factor}x ' if factor > 1 else ''}burst{sign}"
