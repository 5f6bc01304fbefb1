"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from typing import Any, TypeVar

import click

from ratelab.errors import InputError, install_hint, short_repr
from ratelab.lab import CHARTS, LOOP_CHARTS, POLICY_CHARTS, SEMANTICS
from ratelab.quota import Quota
from ratelab.report.charts import LAYOUTS, THEME_NAMES

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


POLICIES_OPTION = click.option(
    "--policies",
    "policy_file",
    metavar="FILE",
    help="Enforce the policies of this file together, instead of comparing algorithms at one quota.",
)
SEMANTICS_OPTION = click.option(
    "--semantics",
    multiple=True,
    type=click.Choice(SEMANTICS),
    help="How policies are enforced, to compare other libraries; repeatable; by default atomic.",
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
    return lambda command: add_options(command, options)


_SCENARIO = (
    click.option("--rate", metavar="RATE", help="Override the scenario's rate, for example with 100/min."),
    click.option("--burst", type=click.IntRange(min=1), help="Override the scenario's burst."),
    click.option("--seed", type=Seed(), help="Override the scenario's seed."),
)


def scenario_options(command: Command) -> Command:
    """Add `--rate`, `--burst` and `--seed` to a command that loads a scenario."""
    return add_options(command, _SCENARIO)


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
    click.option(
        "--chart",
        multiple=True,
        type=Chart(dict.fromkeys([*CHARTS, *POLICY_CHARTS, *LOOP_CHARTS])),
        help=f"Chart to draw; by default {CHARTS[0]}, {POLICY_CHARTS[0]} or {LOOP_CHARTS[0]}.",
    ),
    THEME,
    LAYOUT,
    click.option("--timeline", is_flag=True, help="Show when requests were admitted, delayed or denied."),
)


def comparison_options(command: Command) -> Command:
    """Add `--algo` and the options of `cli.output.Output` to a command that compares algorithms."""
    return add_options(command, _COMPARISON)


def add_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
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
