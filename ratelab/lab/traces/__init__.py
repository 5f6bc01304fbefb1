"""Recorded traffic: access logs, JSON lines, CSV and Parquet."""

from ratelab.lab.traces.files import arrow_installed, called_together, expanded, printable, stored_size
from ratelab.lab.traces.formats import TraceOptions
from ratelab.lab.traces.reader import Trace, read_trace, read_traces

__all__ = [
    "Trace",
    "TraceOptions",
    "arrow_installed",
    "called_together",
    "expanded",
    "printable",
    "read_trace",
    "read_traces",
    "stored_size",
]
