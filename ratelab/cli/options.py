"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ratelab.errors import InputError, install_hint, short_repr
from ratelab.quota import Quota
from ratelab.report.charts import CHARTS, LAYOUTS, THEME_NAMES

if TYPE_CHECKING:
    from ratelab.lab.traces import TraceOptions

Command = TypeVar("Command", bound=Callable[..., Any])

ALGORITHMS_OPTION = click.option(
    "--algo",
    "-a",
    "algorithms",
    multiple=True,
    metavar="NAME|FILE.py:CLASS",
    help="Algorithm to run; repeatable; `all` runs every algorithm.",
)
"""The option whose names `ratelab.algorithms.select` resolves."""

PLOT = click.option("--plot", multiple=True, metavar="FILE|DIRECTORY", help="Draw as .png, .svg or .pdf; repeatable.")
THEME = click.option("--theme", type=click.Choice(THEME_NAMES), help=f"Colors of --plot; by default {THEME_NAMES[0]}.")

LAYOUT = click.option(
    "--layout", type=click.Choice(LAYOUTS), help=f"Layout of --plot, narrow for phones; by default {LAYOUTS[0]}."
)


def parse_share(option: str, text: str) -> Fraction:
    """Parse a share such as `0.1%`, `0.001` or `1/3`; raise `InputError` unless it is at least 0 and below 1."""
    number, percent, _ = text.partition("%")
    try:
        share = Fraction(number.strip()) / (100 if percent else 1)
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share < 1 or len(text) > MAX_SHARE_CHARS or not re.fullmatch(r"[0-9./]+ ?%?", text.strip()):
        raise InputError(f"{option} must be a share from 0 to below 100 %, such as 0.1% or 1/3, got {short_repr(text)}")
    return share


class Seed(click.types.IntParamType):
    """A seed of random traffic, which fits into 64 bits; the range is not worth a line of the help."""

    min, max = 0, 2**63 - 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seed; raise click's usage error if it is out of range."""
        seed: int = super().convert(value, param, ctx)
        if not self.min <= seed <= self.max:
            self.fail(f"{value} is not in the range", param, ctx)
        return seed


MAX_SHARE_CHARS = 30

DEFAULT_RATE, DEFAULT_BURST = "2/s", 5
"""The quota of commands that need none to be given."""

RATE_HELP = f"by default {DEFAULT_RATE}, with a burst of {DEFAULT_BURST}"
BURST_HELP = "by default the count of --rate"


def parse_quota(rate: str | None, burst: int | None) -> Quota:
    """Parse `--rate` and `--burst`. Without a rate it is the default quota; without a burst, that of the rate."""
    return Quota.parse(DEFAULT_RATE, burst or DEFAULT_BURST) if rate is None else Quota.parse(rate, burst)


def quota_options(subject: str) -> Callable[[Command], Command]:
    """Add `--rate` and `--burst`, which `parse_quota` takes, to a command that uses them for `subject`."""
    options = (
        click.option("--rate", metavar="RATE", help=f"Rate of {subject}; {RATE_HELP}."),
        click.option("--burst", type=click.IntRange(min=1), help=f"Burst of {subject}; {BURST_HELP}."),
    )
    return lambda command: _add_options(command, options)


_SCENARIO = (
    click.option("--rate", metavar="RATE", help="Override the scenario's rate, for example with 100/min."),
    click.option("--burst", type=click.IntRange(min=1), help="Override the scenario's burst."),
    click.option("--seed", type=Seed(), help="Override the scenario's seed."),
)


def scenario_options(command: Command) -> Command:
    """Add `--rate`, `--burst` and `--seed` to a command that loads a scenario."""
    return _add_options(command, _SCENARIO)


class Chart(click.Choice[str]):
    """A chart of a comparison."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the chart; for the chart of a sweep, name the command that draws it."""
        if value == "sweep":
            raise InputError("the chart of many quotas belongs to another command: ratelab sweep ... --plot sweep.png")
        return super().convert(value, param, ctx)


_COMPARISON = (
    ALGORITHMS_OPTION,
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables."),
    click.option("--csv", "csv_file", metavar="FILE", help="Write the table as CSV."),
    click.option(
        "--events",
        "events_file",
        metavar="FILE",
        help="Write each request and its decisions as .csv or .jsonl.",
    ),
    click.option(
        "--client-timeout",
        default="10s",
        show_default=True,
        metavar="DURATION",
        help="How long clients wait for a response; a longer delay counts as too late.",
    ),
    click.option("--all-figures", is_flag=True, help="Print every figure of each algorithm, with its meaning."),
    click.option("--accuracy", is_flag=True, help="Compare each algorithm with the exact sliding log in detail."),
    click.option(
        "--equalize",
        type=click.Choice(["peak"]),
        help="Compare at equal protection too: with bursts that keep each worst window within the sliding log's.",
    ),
    click.option(
        "--html",
        "html_target",
        metavar="FILE|DIRECTORY",
        help="Write a page with all tables and charts; a directory gets a page for each run.",
    ),
    PLOT,
    click.option("--chart", multiple=True, type=Chart(CHARTS), help=f"Chart to draw; by default {CHARTS[0]}."),
    THEME,
    LAYOUT,
    click.option("--timeline", is_flag=True, help="Show when requests were admitted, delayed or denied."),
)


def comparison_options(command: Command) -> Command:
    """Add `--algo` and the options of `cli.output.Output` to a command that compares algorithms."""
    return _add_options(command, _COMPARISON)


class TraceFormat(click.ParamType[str]):
    """The name of a trace format. The names are imported when they are needed, so that other commands start fast."""

    name = "format"

    def __init__(self, *more_formats: str) -> None:
        self._more_formats = more_formats

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; raise click's usage error if it is unknown."""
        from ratelab.lab.traces.formats import check_format

        try:
            check_format(value, *self._more_formats)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value


def is_scenario(path: str) -> bool:
    """Return whether a file is a scenario and not a trace, by its name."""
    return path.endswith((".yaml", ".yml"))


TRACE_OPTIONS = (
    "trace_format", "pattern", "key", "time_field", "time_unit", "time_format", "time_zone", "cost_field",
    "only", "exclude", "trusted_proxies", "trusted_hops", "ipv6_prefix", "within_second", "strict", "lenient",
)  # fmt: skip
"""The parameters of `trace_options`."""


def create_trace_options(values: dict[str, Any]) -> TraceOptions:
    """Return the options of reading a trace; take their values out of the parameters of a command."""
    from ratelab.lab.traces import ClientRule, TraceOptions, parse_filters

    given = {name: values.pop(name) for name in TRACE_OPTIONS}
    return TraceOptions(
        format=given["trace_format"],
        key=given["key"],
        time=given["time_field"],
        cost=given["cost_field"],
        unit=given["time_unit"],
        within_second=given["within_second"],
        strict=given["strict"],
        lenient=given["lenient"],
        pattern=given["pattern"],
        time_format=given["time_format"],
        time_zone=given["time_zone"],
        clients=ClientRule(given["trusted_proxies"], given["trusted_hops"], given["ipv6_prefix"]),
        filters=parse_filters(given["only"], given["exclude"]),
    )


def reject_trace_options(reason: str) -> None:
    """Raise `InputError` for options of traces that are given for traffic from another source; `--format` names it."""
    context = click.get_current_context()
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in TRACE_OPTIONS and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    ignored = [name for name in given if name != "--format" or context.params["trace_format"] != "recording"]
    if ignored:
        raise InputError(f"{reason}: leave out {' and '.join(ignored)}")


_RECORDING_HELP = {"recording": "recording: a file written by `ratelab serve --record`"}


def trace_options(*more_formats: str) -> Callable[[Command], Command]:
    """Add the options of `lab.traces.TraceOptions` to a command; `--format` also accepts `more_formats`."""
    options = (
        click.option(
            "--format",
            "trace_format",
            type=TraceFormat(*more_formats),
            default="auto",
            show_default=True,
            metavar="NAME",
            help="; ".join(["`ratelab formats` describes them", *(_RECORDING_HELP[name] for name in more_formats)])
            + ".",
        ),
        click.option(
            "--pattern",
            metavar="REGEX",
            help="Instead: a pattern of the lines, with (?P<client>...) and (?P<time>...).",
        ),
        click.option(
            "--key",
            metavar="FIELD",
            help="The field that identifies the client; forwarded: the forwarded addresses.  [default: ip]",
        ),
        click.option("--time", "time_field", metavar="FIELD", help="The field that holds the time."),
        click.option(
            "--time-unit",
            type=click.Choice(["auto", "s", "ms", "us", "ns", "excel"]),
            default="auto",
            show_default=True,
            help="The unit of numeric times.",
        ),
        click.option("--time-format", metavar="FORMAT", help="How times are written, such as '%d.%m.%Y %H:%M:%S'."),
        click.option(
            "--time-zone", default="UTC", show_default=True, metavar="ZONE", help="The zone of times that name none."
        ),
        click.option("--cost", "cost_field", metavar="FIELD", help="The field that holds the cost; by default 1."),
        click.option(
            "--only",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Keep only these requests; * is any text, @FILE a list; repeatable.",
        ),
        click.option("--exclude", multiple=True, metavar="FIELD=VALUE", help="Leave out these requests; repeatable."),
        click.option(
            "--trusted-proxy",
            "trusted_proxies",
            multiple=True,
            metavar="CIDR",
            help="Trust forwarded addresses from this proxy; repeatable.",
        ),
        click.option(
            "--trusted-hops",
            type=click.IntRange(0, 16),
            default=0,
            help="Alternative to --trusted-proxy: the fixed number of proxies in front.",
        ),
        click.option(
            "--ipv6-prefix",
            type=click.IntRange(48, 64),
            default=64,
            show_default=True,
            help="The bits that identify an IPv6 client.",
        ),
        click.option(
            "--within-second",
            type=click.Choice(["spread", "start"]),
            default="spread",
            show_default=True,
            help="Of whole seconds or minutes: spread requests over them, or keep them at the start.",
        ),
        click.option("--strict", is_flag=True, help="Reject files and lines that cannot be read."),
        click.option("--lenient", is_flag=True, help="Allow most lines of a file to be left out."),
    )

    return lambda command: _add_options(command, options)


def _add_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Add options to a command in the order of its help."""
    for option in reversed(options):
        command = option(command)
    return command


def require(command: str, **extras: tuple[str, ...]) -> None:
    """Raise `InputError` with an install command if modules that `command` needs, given by extra, are missing."""
    missing = {module: extra for extra in extras for module in extras[extra] if find_spec(module) is None}
    if missing:
        hint = install_hint(*dict.fromkeys(missing.values()))
        raise InputError(f"ratelab {command} needs {' and '.join(missing)}: {hint}")
