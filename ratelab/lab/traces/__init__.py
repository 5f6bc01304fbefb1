"""Recorded traffic: access logs, JSON lines, CSV and Parquet."""

from ratelab.lab.traces.clients import ClientRule
from ratelab.lab.traces.files import format_path, format_paths, is_arrow_installed, make_printable, sum_file_sizes
from ratelab.lab.traces.formats import TraceOptions
from ratelab.lab.traces.merge import Trace
from ratelab.lab.traces.reader import read_trace, read_traces
from ratelab.lab.traces.requests import parse_filters

__all__ = [
    "ClientRule",
    "Trace",
    "TraceOptions",
    "format_path",
    "format_paths",
    "is_arrow_installed",
    "make_printable",
    "parse_filters",
    "read_trace",
    "read_traces",
    "sum_file_sizes",
]
