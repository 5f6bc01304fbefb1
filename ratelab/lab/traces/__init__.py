"""Recorded traffic: access logs, JSON lines, CSV and Parquet."""

from ratelab.lab.traces.files import format_path, format_paths, is_arrow_installed, make_printable, sum_file_sizes
from ratelab.lab.traces.formats import TraceOptions
from ratelab.lab.traces.reader import Trace, read_trace, read_traces

__all__ = [
    "Trace",
    "TraceOptions",
    "format_path",
    "format_paths",
    "is_arrow_installed",
    "make_printable",
    "read_trace",
    "read_traces",
    "sum_file_sizes",
]
