"""Files of plans: the plans of many clients in CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ratelab.documents import suggest
from ratelab.errors import InputError, short_repr

MAX_PLANNED_CLIENTS = 100_000
"""Clients of a file of plans, which are kept in memory."""

PLAN_FILE_HEADER = ["key", "plan"]
"""The first line of a file of plans; it may be missing."""


def read_plan_file(path: str, plans: Sequence[str]) -> dict[str, str]:
    """Return the plan of each client of a file; raise `InputError` with the line of the first error.

    Raises `OSError` or `UnicodeDecodeError` for a file that cannot be read.
    """
    plan_of: dict[str, str] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                if not row or (rows.line_num == 1 and row == PLAN_FILE_HEADER):
                    continue
                place = f"{path}:{rows.line_num}"
                if len(row) != len(PLAN_FILE_HEADER) or not all(row):
                    raise InputError(f"{place}: expected KEY,PLAN, got {short_repr(','.join(row))}")
                key, plan = (value.strip() for value in row)
                if plan not in plans:
                    raise InputError(f"{place}: unknown plan {short_repr(plan)}; {suggest(plan, plans)}")
                if plan_of.setdefault(key, plan) != plan:
                    raise InputError(f"{place}: duplicate key {short_repr(key)}: keep one of its plans")
                if len(plan_of) > MAX_PLANNED_CLIENTS:
                    raise InputError(f"{place}: more than {MAX_PLANNED_CLIENTS:,} keys: use plan: {{header: NAME}}")
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: invalid CSV ({error}): write lines such as alice,premium") from None
    return plan_of
