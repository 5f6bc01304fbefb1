"""What `ratelab serve` is asked for and cannot do, or could not be seen to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ratelab.errors import InputError, shown
from ratelab.quota import parse_duration

if TYPE_CHECKING:
    from ratelab.quota import Quota

ON_STORE_ERROR = "local"
STORE_DEADLINE = "100ms"
"""What counts if nothing else is said."""


def check_store(store: str, on_error: str, deadline: str) -> float:
    """Refuse what names no store, and what is said of one where there is none; return the deadline in seconds."""
    if store not in ("memory", "embedded") and "://" not in store:
        got = "something else" if "@" in store else shown(store)  # which may be a password
        raise InputError(f"store must be memory, embedded or a URL such as valkey://localhost:6379, got {got}")
    seconds = _seconds(deadline)
    for option, value, usual in (
        ("--on-store-error", on_error, ON_STORE_ERROR),
        ("--store-deadline", deadline, STORE_DEADLINE),
    ):
        if store == "memory" and value != usual:
            raise InputError(f"{option} {value} is for a store that may fail: add --store embedded or a URL")
    return seconds


def check_workers(workers: int, store: str, quota: Quota) -> None:
    """Refuse several processes where each would have a quota of its own, or where there are none."""
    if workers > 1 and store == "memory":
        raise InputError(
            f"{workers} workers would grant each client {workers} times {quota}, since each has a memory of its own: "
            "use --store embedded, which they share, or --workers 1"
        )
    if workers > 1 and not hasattr(os, "fork"):
        raise InputError("this system has no workers: start the service several times, on ports of their own")


def check_recording(record: str | None, store: str) -> None:
    """Refuse to record what others decide, too."""
    if record is not None and store != "memory":
        raise InputError(
            "a recording holds what one process decides, and a shared store decides for others, too: "
            "use --store memory, or leave out --record"
        )


def check_ports(host: str, port: int, metrics_port: int | None) -> None:
    """Refuse one port for two things."""
    if port and port == metrics_port and host in ("127.0.0.1", "localhost", "0.0.0.0"):  # noqa: S104  (compared)
        raise InputError(f"--port and --metrics-port are both {port}: choose another for one of them")


def _seconds(deadline: str) -> float:
    from ratelab.stores.valkey.connection import LONGEST_DEADLINE

    try:
        seconds = parse_duration(deadline) / 1e9
    except InputError as error:
        raise InputError(f"--store-deadline: {error}") from None
    if not 0 < seconds <= LONGEST_DEADLINE:
        rule = f"above 0 and at most {LONGEST_DEADLINE}s, such as {STORE_DEADLINE}"
        raise InputError(f"--store-deadline must be {rule}, got {shown(deadline)}")
    return seconds
