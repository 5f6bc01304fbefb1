"""Access logs of 17 May 2015, from 10:05:00 UTC on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ratelab.quota import NS_PER_S

START = 1_431_857_100 * NS_PER_S
"""17 May 2015, 10:05:00 UTC."""


def format_line(host: str, time: str, path: str = "/", user: str = "-") -> str:
    """Format a line; `time` is minute and second."""
    return f'{host} - {user} [17/May/2015:10:{time} +0000] "GET {path} HTTP/1.1" 200 12\n'


def write_log(folder: Path, lines: Iterable[str]) -> Path:
    path = folder / "access.log"
    path.write_text("".join(lines), encoding="utf-8")
    return path


CROWD = [
    *[format_line("192.0.2.1", f"05:{second:02}") for second in range(30)],
    *[format_line("192.0.2.2", f"05:{second:02}") for second in range(0, 30, 3)],
    *[format_line("192.0.2.3", "05:30") for _ in range(4)],
    format_line("192.0.2.4", "05:31"),
]
"""45 requests of four clients in 32 s, those of two clients out of order."""
