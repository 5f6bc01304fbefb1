"""Command `ratelab prove`."""

from __future__ import annotations

import json

import click

from ratelab.algorithms import find
from ratelab.cli.artifacts import is_directory, join_image_path, make_stems, resolve_images, write_image
from ratelab.cli.options import PLOT, THEME, parse_quota, quota_options, require
from ratelab.cli.output import LateProgress, check_distinct, create_console
from ratelab.errors import InputError
from ratelab.prove import DEFAULT_TIMEOUT_NS, REFUTED, Proof
from ratelab.prove import prove as prove_algorithm
from ratelab.quota import format_duration, parse_duration
from ratelab.report.charts import THEME_NAMES

EXTRA = ("z3",)


@click.command()
@click.argument("algorithm", metavar="ALGO|FILE.py:CLASS")
@quota_options("the proof")
@click.option(
    "--timeout",
    default=format_duration(DEFAULT_TIMEOUT_NS),
    show_default=True,
    metavar="DURATION",
    help="Time for each theorem; one that takes longer is not decided.",
)
@click.option("--theorem", "theorems", multiple=True, metavar="NAME", help="Only this theorem; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
@PLOT
@THEME
@click.pass_context
def prove(
    ctx: click.Context,
    algorithm: str,
    rate: str | None,
    burst: int | None,
    timeout: str,
    theorems: tuple[str, ...],
    as_json: bool,
    plot: tuple[str, ...],
    theme: str | None,
) -> None:
    """Prove or refute the promises of ALGO for all states, times and costs of a quota.

    The `step` of the algorithm is translated from its source for the solver Z3. --plot draws the timeline that refutes
    the first promise, or in a directory, one for each. Exit status 1 if a promise is refuted or not decided.
    """
    require("prove", prove=EXTRA)
    images = resolve_images(plot, theme, None, "refuted")
    source = [algorithm.rpartition(":")[0]] if ".py:" in algorithm else []
    check_distinct(source, [*images])
    kind, quota = find(algorithm), parse_quota(rate, burst)
    with LateProgress(f"proving {kind.name}", None) as progress:
        proof = prove_algorithm(kind, quota, _parse_timeout(timeout), theorems, progress)
    if as_json:
        from ratelab.learn.proof import serialize_proof

        click.echo(json.dumps(serialize_proof(proof), ensure_ascii=False))
    else:
        from ratelab.learn.proof import render_proof

        create_console().print(render_proof(proof))
    for target in plot:
        _write_images(target, proof, theme or THEME_NAMES[0])
    ctx.exit(0 if proof.is_complete else 1)


def _parse_timeout(text: str) -> int:
    try:
        timeout = parse_duration(text)
    except InputError as error:
        raise InputError(f"--timeout: {error}") from None
    if timeout == 0:
        raise InputError(f"--timeout must be above 0, got {text!r}: give each theorem some time, such as 10s")
    return timeout


def _write_images(target: str, proof: Proof, theme: str) -> None:
    """Draw the first refutation into a file, or each into a directory."""
    refuted = [finding for finding in proof.findings if finding.status == REFUTED]
    if not refuted:
        click.echo(f"Did not write {target}: nothing is refuted.", err=True)
        return
    from ratelab.learn.chart import draw_refutation  # imports matplotlib

    if not is_directory(target):
        write_image(target, draw_refutation(proof, refuted[0], theme))
        return
    for stem, finding in zip(make_stems([finding.name for finding in refuted]), refuted, strict=True):
        write_image(join_image_path(target, stem), draw_refutation(proof, finding, theme))
