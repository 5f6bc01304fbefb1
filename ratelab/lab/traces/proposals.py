"""Proposal of a first pattern for lines of an unknown format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ratelab.lab.traces.clients import is_address
from ratelab.lab.traces.text_formats import DATE_TIME

_NUMERIC_TIME = r"[0-9]{10}(?:\.[0-9]+|[0-9]{3}|[0-9]{6}|[0-9]{9})?"
_TIMES = (DATE_TIME, _NUMERIC_TIME)
_CLIENTS = (r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+", "[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]+")
_ENOUGH = 0.5


def propose_pattern(lines: Sequence[str]) -> str | None:
    """Return a pattern that reads a time and a client from most of these lines; None if none is found.

    The client is the first address of a line; the pattern contains no single quotes.
    """
    for time in _TIMES:
        for client in _CLIENTS:
            for first, second in (
                (f"(?P<time>{time})", f"(?P<client>{client})"),
                (f"(?P<client>{client})", f"(?P<time>{time})"),
            ):
                between = "(?:[^0-9].*?[^0-9A-Fa-f.:]|[^0-9A-Fa-f.])"
                pattern = f"^(?:.*?[^0-9A-Za-z.:])?{first}{between}{second}(?:[^0-9A-Za-z.]|$)"
                matches = [re.match(pattern, line[:2000], re.ASCII) for line in lines[:20]]
                found = [match for match in matches if match and is_address(match["client"])]
                if len(found) > _ENOUGH * len(matches):
                    return pattern
    return None
