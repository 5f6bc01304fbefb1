"""Accuracy cards as tables for the terminal: how far each algorithm is from the exact sliding log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.counter_estimate import CLAIMED_DIFFERENCE, CLAIMED_WRONG, Estimate
from ratelab.report.serialize import result_rows
from ratelab.report.summary import counted, listed, seconds
from ratelab.report.tables import WORST, client_table

ACCURACY_NOTES = (
    "at_most: what the algorithm promises of any window. unearned: admitted although what it had itself admitted in "
    "the window before left no room; withheld: denied although it left room."
)

CARD: dict[str, tuple[str, Callable[[Any], str]]] = {
    "peak_in_window": ("peak_\nin_\nwindow", "{:,}".format),
    "at_most": ("at_\nmost", "{:,}".format),
    "peak_at": ("peak_\nat", lambda at: seconds(at) if at else "0s"),
    "peak_key": ("peak_\nkey", str),
    "over_admitted": ("over_\nadmitted", "{:,}".format),
    "over_denied": ("over_\ndenied", "{:,}".format),
    "unearned": ("un-\nearned", "{:,}".format),
    "withheld": ("with-\nheld", "{:,}".format),
}
"""Each figure's header, broken over lines, and how its value is written."""

KEY = 16
"""Columns of the terminal in which a key is named."""

BROKEN = "more than the algorithm promises"


def card_table(comparison: Comparison) -> RenderableType:
    """Return each algorithm's card as a row, and in words what share of its decisions differ."""
    columns, rows = card_columns(comparison), result_rows(comparison)
    cells = [[_card_cell(row, name) for name in columns] for row in rows]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("held against the\nexact sliding\nlog", overflow="fold", vertical="bottom")
    for name, column in zip(columns, zip(*cells, strict=True), strict=True):
        width = max(map(cell_len, (*CARD[name][0].split("\n"), *column)))
        table.add_column(
            CARD[name][0],
            justify="left" if name == "peak_key" else "right",
            vertical="bottom",
            no_wrap=True,
            overflow="ellipsis",
            width=min(width, KEY) if name == "peak_key" else width,
        )
    for row, texts in zip(rows, cells, strict=True):
        table.add_row(escape(row["algorithm"]), *map(escape, texts), style="red" if breaks(row) else "")
    broken = [Text(f"{WORST} {BROKEN}", style="dim")] if any(map(breaks, rows)) else []
    sentences = [*differing(comparison), *estimated(comparison)]
    return Group(table, *broken, Text(ACCURACY_NOTES, style="dim"), Text(), *map(Text, sentences))


def breaks(row: dict[str, Any]) -> bool:
    """Say whether an algorithm let more out than it promises."""
    return row["at_most"] is not None and bool(row["peak_in_window"] > row["at_most"])


def _card_cell(row: dict[str, Any], name: str) -> str:
    return f"{card_cell(row, name)}{WORST if name == 'peak_in_window' and breaks(row) else ''}"


def card_columns(comparison: Comparison) -> list[str]:
    """Return the figures of a card that tell something: with one client, there is no question whose window it was."""
    return [name for name in CARD if name != "peak_key" or len(comparison.traffic.names) > 1]


def card_cell(row: dict[str, Any], name: str) -> str:
    """Return how a figure of a card is written."""
    return "-" if row[name] is None else CARD[name][1](row[name])


def differing(comparison: Comparison) -> list[str]:
    """Say what share of each algorithm's decisions differ from the exact log's; nothing if that is not known."""
    counts = {
        result.algorithm: result.over_admitted + result.over_denied
        for result in comparison.results
        if result.over_admitted is not None and result.over_denied is not None
    }
    offered = max(1, len(comparison.traffic))
    some = [f"{name} {count:,} ({percent(count / offered)})" for name, count in counts.items() if count]
    none = [name for name, count in counts.items() if not count]
    told = [*([", ".join(some)] if some else []), *([f"{listed(none)} none"] if none else [])]
    return [f"Decisions that differ from the exact log's: {'; '.join(told)}."] if told else []


def estimated(comparison: Comparison) -> list[str]:
    """Say how good the sliding counter's estimate was of what was asked, beside what is claimed of it."""
    found, offered = comparison.estimate, len(comparison.traffic)
    if found is None or not offered:
        return []
    wrong = found.wrongly_allowed + found.wrongly_limited
    share = f" ({percent(found.wrong_ratio)})" if wrong else ""
    return [
        "As an estimate of what was asked, nothing denied, the sliding counter was off by "
        f"{percent(found.mean_difference)} on average, and on the wrong side of the limit with "
        f"{f'{wrong:,}' if wrong else 'none'} of {counted(offered, 'request')}{share}. {_keys(found)} "
        f"Cloudflare's analysis of 2017 found {percent(CLAIMED_DIFFERENCE)} and {percent(CLAIMED_WRONG)}: "
        "https://blog.cloudflare.com/counting-things-a-lot-of-different-things/"
    ]


def _keys(found: Estimate) -> str:
    """Say which keys were above the limit and which were taken to be."""
    unnoticed = f" ({found.keys_missed:,} of them unnoticed)" if found.keys_missed else ""
    return f"Keys ever above the limit: {found.keys_above:,}{unnoticed}; others taken to be: {found.keys_blamed:,}."


def percent(ratio: float) -> str:
    """Write a ratio in per cent, to two figures: `0.004 %`, `12 %`, `190 %`."""
    return f"{float(f'{100 * ratio:.2g}'):.10g} %"


def differing_table(comparison: Comparison, most: int) -> RenderableType | None:
    """Return the clients of whose requests most were decided otherwise than by the exact log; None if there are none.

    A cell holds the client's `over_admitted` and `over_denied`.
    """
    pairs = [(card.client_over_admitted, card.client_over_denied) for card in comparison.accuracy]
    known = [(over, under) for over, under in pairs if over is not None and under is not None]
    if len(comparison.traffic.names) < 2 or not known:
        return None
    worst = np.max([over + under for over, under in known], axis=0)
    ranked = [index for index in np.argsort(-worst, kind="stable")[:most].tolist() if worst[index]]
    if not ranked:
        return None
    rows = [
        (comparison.traffic.names[index], [f"+{over[index]:,} -{under[index]:,}" for over, under in known])
        for index in ranked
    ]
    table = client_table("most differing\nclient", [result.algorithm for result in comparison.results], rows)
    return Group(table, Text("+ over_admitted  - over_denied", style="dim"))
