"""A comparison as plain values: one set of names for JSON, CSV and tables."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ratelab.lab.accuracy import Accuracy
from ratelab.lab.comparison import Comparison
from ratelab.lab.equal_protection import EqualProtection
from ratelab.lab.metrics import Result
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota
from ratelab.report.summary import counted

FIGURE_NAMES = tuple(field.name for field in fields(Result) if not field.name.startswith("client_"))
"""The figures of an algorithm that are one value each, in the order in which they are reported."""


def quota_object(quota: Quota) -> dict[str, Any]:
    """Return the quota with its window in seconds."""
    return {"rate": quota.rate, "burst": quota.burst, "window": quota.window / 1e9}


def result_row(result: Result) -> dict[str, Any]:
    """Return the figures of `FIGURE_NAMES`."""
    return {column: getattr(result, column) for column in FIGURE_NAMES}


def card_row(comparison: Comparison, card: Accuracy) -> dict[str, Any]:
    """Return the figures of an accuracy card that are one value each; `peak_at` is in seconds since the beginning."""
    return {
        "at_most": card.at_most,
        "peak_at": None if card.worst is None else card.worst.begin / 1e9,
        "peak_key": None if card.worst is None else key_name(comparison.traffic, card.worst.key),
        "unearned": card.unearned,
        "withheld": card.withheld,
    }


def result_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return each result's figures, with those of its accuracy card if there is one."""
    cards = [card_row(comparison, card) for card in comparison.accuracy] or [{}] * len(comparison.results)
    return [{**result_row(result), **card} for result, card in zip(comparison.results, cards, strict=True)]


def key_name(traffic: Traffic, key: int) -> str:
    """Name a key after the clients that share it: `alice`, or `alice and 5 others`."""
    sharing = np.flatnonzero(traffic.keys == key)
    first, others = traffic.names[int(sharing[0])], len(sharing) - 1
    return f"{first} and {counted(others, 'other')}" if others else first


def client_rows(comparison: Comparison, number: int, most: int | None = None) -> list[dict[str, Any]]:
    """Return what each client offered and was admitted by result `number`; given `most`, the most denied so many."""
    result = comparison.results[number]
    columns: dict[str, Integers | None] = {"offered": result.client_offered, "admitted": result.client_admitted}
    if comparison.accuracy:
        card = comparison.accuracy[number]
        columns |= {"over_admitted": card.client_over_admitted, "over_denied": card.client_over_denied}
    denied = result.client_offered - result.client_admitted
    order = range(len(denied)) if most is None else np.argsort(-denied, kind="stable")[:most].tolist()
    return [
        {
            "client": comparison.traffic.names[index],
            **{name: None if column is None else int(column[index]) for name, column in columns.items()},
        }
        for index in order
    ]


def equal_object(protection: EqualProtection) -> dict[str, Any]:
    """Return what became of each algorithm at equal protection, with the burst that it takes."""
    return {
        "peak_in_window": protection.target,
        "good": protection.good,
        "results": [
            {
                **result_row(equal.result),
                "burst": equal.burst,
                "fits": equal.fits,
                "good_denied": equal.good_denied,
                "at_quota_good_denied": equal.at_quota_good_denied,
            }
            for equal in protection.equals
        ],
    }


def comparison_object(comparison: Comparison, source: dict[str, Any], most: int | None = None) -> dict[str, Any]:
    """Return the whole comparison as `--json` prints it; `source` says what the traffic came from."""
    return {
        "version": 1,
        **source,
        "quota": quota_object(comparison.quota),
        "offered": len(comparison.traffic),
        "duration": comparison.traffic.duration / 1e9,
        "results": [
            {**row, "per_client": client_rows(comparison, number, most)}
            for number, row in enumerate(result_rows(comparison))
        ],
        **({"estimate": asdict(comparison.estimate)} if comparison.estimate else {}),
        **({"equal_protection": equal_object(comparison.equal_protection)} if comparison.equal_protection else {}),
    }


MEANINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("offered", "admitted", "denied", "delayed"), "requests; delayed ones were admitted and had to queue"),
    (("admit_ratio",), "admitted over offered"),
    (("peak_in_window",), "the most cost of one key that left in any window"),
    (("overshoot",), "that over burst: above 1, the quota was exceeded"),
    (("mean_delay", "max_delay"), "seconds in the queue"),
    (
        ("burstiness",),
        "coefficient of variation of the gaps between departures: 0 a metronome, 1 random, above it bursts",
    ),
    (("fairness",), "Jain's index of the clients' admitted shares: 1 all alike, 1/n one gets everything"),
    (("over_admitted", "over_denied"), "requests admitted that the exact sliding log denies, and the reverse"),
    (("state_bytes_per_key",), "eight bytes for each number in a key's state"),
    (("clients", "clients_denied", "clients_denied_ratio"), "clients that sent anything, and those ever denied"),
    (
        ("at_most",),
        "the most that the algorithm promises to let out in any window; beside it, peak_in_window is what it did",
    ),
    (("peak_at", "peak_key"), "when the fullest window began, in seconds, and whose it was"),
    (
        ("unearned",),
        "requests admitted although what the algorithm itself had admitted in the window before left no room",
    ),
    (("withheld",), "requests denied although it left room"),
)
"""The figures of a result and of its accuracy card, by name, as the README tells them."""
