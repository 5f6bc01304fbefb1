"""Promises of a rate limiter, each with its definition and its check."""

from __future__ import annotations

from collections.abc import Callable

from ratelab.judge.promises import bound, clock, due, flood, retrying, several, store, threads, wait
from ratelab.judge.trial import Bench, PromiseReport

CHECKS: dict[str, Callable[[Bench], PromiseReport]] = {
    "bound": bound.check,
    "due": due.check,
    "wait": wait.check,
    "retrying": retrying.check,
    "flood": flood.check,
    "clock": clock.check,
    "threads": threads.check,
    "several": several.check,
    "store": store.check,
}
"""The checks by the names of the promises, in the order of a report."""
