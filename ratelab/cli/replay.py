"""`ratelab replay`: recorded traffic through the algorithms."""

from __future__ import annotations

import click

from ratelab.cli.options import chosen, comparison_options


@click.command(short_help="Replay recorded traffic: what would a limit have done to it?")
@click.argument("trace", metavar="TRACE")
@click.option("--rate", required=True, metavar="RATE", help="What every client is granted, such as 100/min.")
@click.option("--burst", type=click.IntRange(min=1), help="How much may come at once; by default as the rate says.")
@comparison_options
@click.option("--key", default="ip", show_default=True, metavar="FIELD", help="The field that says who the client is.")
@click.option(
    "--format",
    "trace_format",
    type=click.Choice(["auto", "log", "jsonl", "csv"]),
    default="auto",
    show_default=True,
    help="log: Apache or nginx, common or combined.",
)
@click.option("--time", "time_field", metavar="FIELD", help="JSON lines and CSV: the field that holds the time.")
@click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), default="s", show_default=True)
@click.option("--cost", "cost_field", metavar="FIELD", help="JSON lines and CSV: the field that holds the cost.")
@click.option(
    "--within-second",
    type=click.Choice(["spread", "start"]),
    default="spread",
    show_default=True,
    help="Where requests stand if the trace tells only whole seconds: spread evenly over theirs, or all at its start.",
)
@click.option("--strict", is_flag=True, help="Refuse a trace with a line that cannot be read.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Most denied clients to tell.")
def replay(
    trace: str,
    rate: str,
    burst: int | None,
    algorithms: tuple[str, ...],
    as_json: bool,
    csv_file: str | None,
    events_file: str | None,
    timeline: bool,
    key: str,
    trace_format: str,
    time_field: str | None,
    time_unit: str,
    cost_field: str | None,
    within_second: str,
    strict: bool,
    top: int,
) -> None:
    """Replay TRACE through every algorithm, as if each client had been granted --rate.

    TRACE is an access log, JSON lines or CSV, plain or gzip; - is standard input. Without --algo, the usual five.
    """
    from ratelab.algorithms import COMPARED
    from ratelab.cli.output import Output, Run, deliver
    from ratelab.cli.progress import LateProgress
    from ratelab.lab.comparison import compare
    from ratelab.lab.traces import TraceOptions, printable, read_trace, stored_size
    from ratelab.quota import Quota
    from ratelab.report.reading import reading_notes, reading_object

    output = Output(as_json, csv_file, events_file, timeline, (trace,))
    quota = Quota.parse(rate, burst)
    classes = chosen(algorithms, COMPARED)
    options = TraceOptions(trace_format, key, time_field, cost_field, time_unit, within_second, strict)
    with LateProgress("reading", stored_size(trace)) as progress:
        read = read_trace(trace, options, progress)
    with LateProgress("replaying", len(read.traffic) * (len(classes) + 1)) as progress:
        comparison = compare(quota, read.traffic, classes, output.needs_decisions, progress)
    source = {"trace": printable(trace), **reading_object(read)}
    title = f"{'standard input' if trace == '-' else printable(trace)}, read as {read.format}"
    deliver([Run(comparison, source, title, reading_notes(read, within_second), top)], output)
