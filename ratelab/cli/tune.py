"""`ratelab tune`: find the limit that fits some traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ratelab.algorithms import Policy, parse_policy, select, traits_of
from ratelab.cli.artifacts import check_page, format_next, resolve_images, write_image, write_tuning_page
from ratelab.cli.options import (
    ALGORITHMS_OPTION,
    LAYOUT,
    PLOT,
    POLICIES_OPTION,
    THEME,
    parse_share,
)
from ratelab.cli.output import (
    LateProgress,
    check_distinct,
    create_console,
    print_sentences,
    print_table,
    print_text,
    tune_compiler,
)
from ratelab.cli.sources import (
    EXAMPLE,
    TRACE_OPTIONS,
    TrafficSource,
    load_source,
    trace_options,
)
from ratelab.errors import InputError
from ratelab.lab.sweep import parse_quotas
from ratelab.lab.traces.files import sum_file_sizes
from ratelab.lab.traces.inspection import Inspection, inspect_traces
from ratelab.lab.traces.requests import read_values
from ratelab.lab.tune import Analysis, Demand, LocalDemand, Outlier, Tuning, analyze, tune_demand
from ratelab.lab.tune.analysis import count_variation_work, measure_variation
from ratelab.lab.tune.outliers import Inspect
from ratelab.lab.tune.queries import USUAL_REPLAYS
from ratelab.lab.tune.tuning import count_work, match_keys
from ratelab.limiter import Algorithm
from ratelab.report.charts import LAYOUTS, THEME_NAMES, draw_tuning
from ratelab.report.files import check_writable, write_rows
from ratelab.report.tune import describe_tuned_traffic, describe_tuning, list_warnings
from ratelab.report.tune_tables import build_needs_table, build_outliers_table, serialize_rates, serialize_tuning

if TYPE_CHECKING:
    from ratelab.lab.policies.figures import PolicyCheck

RATES_OF_RANGE = 7


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="TRACE|SCENARIO...")
@click.option(
    "--tolerate",
    default="0.1%",
    show_default=True,
    metavar="SHARE",
    help="The share of clients that may ever be denied.",
)
@click.option(
    "--rate",
    "rates",
    metavar="RATES",
    help="Rates to choose from, such as 1/s,5/s or 1/min..1/s; by default many.",
)
@ALGORITHMS_OPTION
@click.option(
    "--holdout",
    default="1/3",
    show_default=True,
    metavar="SHARE",
    help="The last part of the time, on which the burst of the earlier part is checked; 0 for none.",
)
@click.option("--good", metavar="FILE", help="Clients that must not be denied: names, patterns or CIDRs, one a line.")
@click.option("--ignore", metavar="FILE", help="Clients that do not count, such as known bots, in the same form.")
@click.option(
    "--check",
    "checked",
    metavar="LIMIT",
    help="ALGORITHM:RATE:BURST: exit with status 1 if it denies too many clients.",
)
@POLICIES_OPTION
@click.option(
    "--policy", metavar="NAME", help="The policy of --policies to recommend a quota for; by default the first."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the needs at each rate as CSV.")
@click.option("--html", "html_file", metavar="FILE", help="Write a page with sliders for the rate and the burst.")
@PLOT
@THEME
@LAYOUT
@trace_options()
def tune(
    sources: tuple[str, ...],
    tolerate: str,
    rates: str | None,
    algorithms: tuple[str, ...],
    holdout: str,
    good: str | None,
    ignore: str | None,
    checked: str | None,
    policy_file: str | None,
    policy: str | None,
    as_json: bool,
    csv_file: str | None,
    html_file: str | None,
    plot: tuple[str, ...],
    theme: str | None,
    layout: str | None,
    **reading: Any,
) -> None:
    """Find the rate and burst that deny few clients of some traffic, and show which clients need more.

    The traffic is TRACEs as for `ratelab replay`, or a SCENARIO, a .yaml file. Each client needs a burst at each rate:
    with less, a token bucket denies it something. The recommendation covers the ordinary clients, and lists the others.
    With --policies, each policy of the file is checked first, and a quota is recommended for one of them.
    """
    tolerated, held_out = parse_share("--tolerate", tolerate), parse_share("--holdout", holdout)
    quotas = parse_quotas(rates, None, RATES_OF_RANGE) if rates else ()
    kinds = select(algorithms, ("token-bucket",))
    check = parse_policy(checked) if checked else None
    lists = {option: read_values(path) for option, path in (("--good", good), ("--ignore", ignore)) if path}
    images = resolve_images(plot, theme, layout, "tune")
    if html_file is not None:
        check_page(html_file)
    check_distinct(sources, (csv_file, html_file, *images))
    if csv_file is not None:
        check_writable(csv_file)
    if policy is not None and policy_file is None:
        raise InputError("--policy names a policy of a file: add --policies FILE")
    with _load(sources, reading, lists, kinds, check, (policy_file, policy)) as loaded:
        source, demand = loaded.source, loaded.demand
        masks = {option: match_keys(source.traffic, texts) for option, texts in lists.items()}
        warnings = [f"no client is named in the file of {option}" for option, mask in masks.items() if not mask.any()]
        if ignore and not len(demand.traffic):
            raise InputError(f"no request is left after --ignore {ignore}: name fewer clients")
        with LateProgress("tuning", loaded.count_work(held_out)) as progress:
            tuning = tune_demand(demand, quotas, tolerated, kinds, held_out, progress)
        analysis = _analyze(tuning, loaded, check)
        warnings += list_warnings(analysis)
        if csv_file is not None:
            label = dict(list(source.fields.items())[:1])
            write_rows(csv_file, [{**label, **row} for row in serialize_rates(tuning)])
        for path in images:
            caption = f"{source.title}\n{describe_tuned_traffic(tuning)}"
            write_image(path, draw_tuning(tuning, theme or THEME_NAMES[0], caption, layout or LAYOUTS[0]))
        if html_file is not None:
            with LateProgress("replaying limits", None) as progress:
                write_tuning_page(html_file, analysis, source.title, source.notes, warnings, progress)
    if as_json:
        fields = source.fields if loaded.check is None else {**source.fields, **_serialize_check(loaded.check)}
        click.echo(json.dumps(serialize_tuning(analysis, fields, warnings), ensure_ascii=False))
    else:
        if loaded.check is not None:
            _print_check(source, loaded.check)
        part = loaded.check and loaded.check.chosen
        _print(source, analysis, warnings, part.policy if part else None)
    if not analysis.passed:
        raise SystemExit(1)


class _Loaded(NamedTuple):
    """The traffic to tune."""

    source: TrafficSource
    demand: Demand
    inspect: Inspect | None = None
    """Reads the traces of the source again; None if that is not possible."""
    check: PolicyCheck | None = None
    """The check of a policy file."""

    def count_work(self, holdout: Fraction) -> int | None:
        """Return how many requests are handled in this process; None if tasks handle them."""
        return count_work(self.demand.traffic, holdout) if isinstance(self.demand, LocalDemand) else None


@contextmanager
def _load(
    sources: tuple[str, ...],
    reading: dict[str, Any],
    lists: dict[str, list[str]],
    kinds: Sequence[type[Algorithm]],
    check: Policy | None,
    policies: tuple[str | None, str | None],
) -> Iterator[_Loaded]:
    """Load a scenario or read traces, by an engine if there is one, which stays open.

    An engine examines the requests of built-in algorithms by tasks; otherwise they are gathered here. `policies` has a
    policy file and the name of one of its policies.
    """
    tried = [*kinds, *([type(check.algorithm)] if check else [])]
    if reading["engine"] is not None and policies[0] is None and all(traits_of(kind).bound for kind in tried):
        from ratelab.cli.distributed import open_demand  # only for engines

        good, ignored = (lists.get(option, ()) for option in ("--good", "--ignore"))
        with open_demand(sources, reading, good, ignored) as loaded:
            yield _Loaded(*loaded)
        return
    policy_check: PolicyCheck | None = None
    if policies[0] is not None:
        from ratelab.cli.policy_runs import check_policies  # only for several policies

        source, policy_check = check_policies(policies[0], policies[1], sources, reading)
    else:
        source = load_source(sources, reading)
    masks = {option: match_keys(source.traffic, texts) for option, texts in lists.items()}
    local = LocalDemand(source.traffic, masks.get("--good"), masks.get("--ignore"))
    tune_compiler(local.traffic, USUAL_REPLAYS * len(kinds))
    yield _Loaded(source, local, _create_inspect(source), policy_check)


def _create_inspect(source: TrafficSource) -> Inspect | None:
    """Return a function that reads the traces of a source again; None for a scenario and standard input."""
    options = source.options
    if options is None or "-" in source.paths:
        return None

    def inspect(outliers: Sequence[Outlier]) -> Inspection:
        with LateProgress("looking at outliers", sum_file_sizes(source.paths)) as progress:
            return inspect_traces(source.paths, options, [outlier.client for outlier in outliers], progress)

    return inspect


def _analyze(tuning: Tuning, loaded: _Loaded, check: Policy | None) -> Analysis:
    trace, options = loaded.source.trace, loaded.source.options
    if trace is None or options is None:
        return analyze(tuning, check)
    with LateProgress("comparing times", count_variation_work(tuning, trace)) as progress:
        variation = measure_variation(tuning, trace, options, progress)
    return analyze(tuning, check, variation, loaded.inspect)


def _serialize_check(check: PolicyCheck) -> dict[str, Any]:
    from ratelab.report.policy_tables import serialize_check  # only for several policies

    return serialize_check(check)


def _print_check(source: TrafficSource, check: PolicyCheck) -> None:
    """Print the denials of each policy of a file, and those of all together."""
    from ratelab.report.policy_tables import build_check_table, describe_policy_check

    console = create_console()
    console.print(f"{source.title}: each policy", style="bold", markup=False)
    print_table(console, build_check_table(check), with_caption=False)
    print_sentences(console, describe_policy_check(check))
    console.print()


MAX_LINES = 30


class _Amounts(NamedTuple):
    """How much of a report is printed."""

    rates: int
    outliers: int
    tightest: int
    joined: bool = False
    """Whether sentences follow each other in a line, and examples of lines that are left out are not printed."""
    variation: bool = True
    """Whether the days and hours are described."""


_AMOUNTS = (
    _Amounts(7, 5, 5),
    _Amounts(7, 3, 5),
    _Amounts(5, 3, 5),
    _Amounts(5, 2, 5),
    _Amounts(3, 2, 5),
    _Amounts(3, 2, 3),
    _Amounts(3, 1, 3),
    _Amounts(3, 1, 3, joined=True),
    _Amounts(1, 1, 1, joined=True),
    _Amounts(1, 1, 1, joined=True, variation=False),
)
"""Parts of reports: the first are printed with which there are at most `MAX_LINES`."""


def _print(source: TrafficSource, analysis: Analysis, warnings: list[str], chosen: Policy | None) -> None:
    """Print a report; `chosen` is the policy of a file for which a quota is recommended."""
    console = create_console()
    for amounts in _AMOUNTS:
        with console.capture() as capture:
            _print_amounts(console, source, analysis, warnings, amounts, chosen)
        if capture.get().count("\n") <= MAX_LINES:
            break
    _print_amounts(console, source, analysis, warnings, amounts, chosen)


def _print_amounts(
    console: Any,
    source: TrafficSource,
    analysis: Analysis,
    warnings: list[str],
    amounts: _Amounts,
    chosen: Policy | None,
) -> None:
    tuning = analysis.tuning
    console.print(source.title, style="bold", markup=False)
    console.print(describe_tuned_traffic(tuning), markup=False)
    for note in source.notes:
        if not (amounts.joined and note.startswith(EXAMPLE)):
            print_text(console, note, "dim")
    print_table(console, build_needs_table(tuning, amounts.rates))
    print_table(console, build_outliers_table(analysis, amounts.outliers))
    report = describe_tuning(analysis, warnings, amounts.tightest, amounts.variation)
    *findings, cautions = ([" ".join(part)] if part else [] for part in report) if amounts.joined else report
    print_sentences(console, list(chain(*findings)))
    for caution in cautions:
        print_text(console, caution, "yellow")
    console.print(f"Next: {_format_next(source, analysis, chosen)}", markup=False, soft_wrap=True)


def _format_next(source: TrafficSource, analysis: Analysis, chosen: Policy | None) -> str:
    """Return the command that shows what the recommendation does to the traffic, after a change of a policy file."""
    policy, context = analysis.tuning.recommended.policy, click.get_current_context()
    if chosen is not None:
        file = context.params["policy_file"]
        command = "simulate" if "scenario" in source.fields else "replay"
        again = format_next(context, command, ("sources", *TRACE_OPTIONS), "--policies", file)
        algorithm = "" if chosen.algorithm.name == policy.name else f"algorithm: {policy.name}, "
        timezone = "" if chosen.quota.calendar is None else " without a timezone"
        quota = f"{algorithm}rate: {policy.quota.rate}, burst: {policy.quota.burst}"
        return f"in {file}, give {chosen.name} {quota}{timezone}; then {again}"
    command = "replay" if source.trace else "simulate"
    options = ("--rate", policy.quota.rate, "--burst", str(policy.quota.burst), "--algo", policy.name)
    return format_next(click.get_current_context(), command, ("sources", *TRACE_OPTIONS), *options)
