"""Promise `store`: placeholder."""

from __future__ import annotations

from ratelab.judge.trial import Bench, PromiseReport


def check(bench: Bench) -> PromiseReport:
    """Return that the promise does not apply."""
    return PromiseReport(None, reason="has no store")
