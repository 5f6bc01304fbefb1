"""Recorded traffic: access logs, JSON lines and CSV."""

from ratelab.lab.traces.lines import printable, stored_size
from ratelab.lab.traces.trace import Trace, TraceOptions, read_trace

__all__ = ["Trace", "TraceOptions", "printable", "read_trace", "stored_size"]
