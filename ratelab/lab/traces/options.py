"""How a trace is to be read."""

from __future__ import annotations

from dataclasses import dataclass

from ratelab.errors import InputError, shown
from ratelab.lab.traces.jsonl import CLIENTS, TIMES, Fields
from ratelab.quota import UNITS

FORMATS = ("auto", "log", "jsonl", "csv", "parquet")
TIME_UNITS = ("s", "ms", "us", "ns")
WITHIN_SECOND = ("spread", "start")


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse what is not known."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")


@dataclass(frozen=True)
class TraceOptions:
    """How to read a trace. Raises `InputError` for a format, unit or `within_second` that there is not."""

    format: str = "auto"
    """`log`, `jsonl`, `csv`, or `auto`: told by the first line that is not blank."""
    key: str = "ip"
    """The field that says who the client is; in JSON lines and CSV, `ip` is the first of `CLIENTS` there is."""
    time: str | None = None
    """JSON lines and CSV: the field that holds the time; by default the first of `TIMES` there is."""
    cost: str | None = None
    """JSON lines and CSV: the field that holds the cost; by default each request costs 1."""
    unit: str = "s"
    """The unit of times that are numbers: s, ms, us or ns; `at_ns` is always in ns."""
    within_second: str = "spread"
    """`spread` or `start`: where requests stand if only whole seconds are known; see `read_trace`."""
    strict: bool = False
    """Whether a line that cannot be read is an error."""

    def __post_init__(self) -> None:
        _check_one_of("format", self.format, FORMATS)
        _check_one_of("unit", self.unit, TIME_UNITS)
        _check_one_of("within_second", self.within_second, WITHIN_SECOND)

    @property
    def fields(self) -> Fields:
        """The fields of a record that these options name."""
        clients = CLIENTS if self.key == "ip" else (self.key,)
        times = TIMES if self.time is None else (self.time,)
        return Fields(clients, times, self.cost, UNITS[self.unit])
