"""Recorded traffic: access logs, JSON lines and CSV."""

from ratelab.lab.traces.lines import stored_size
from ratelab.lab.traces.trace import Trace, TraceOptions, read_trace

__all__ = ["Trace", "TraceOptions", "read_trace", "stored_size"]
