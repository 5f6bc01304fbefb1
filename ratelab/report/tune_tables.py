"""Tuning as tables and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ratelab.algorithms import traits_of
from ratelab.lab.traces.inspection import Signals
from ratelab.lab.tune import Analysis, Candidate, Gap, Outlier, RateNeeds, Tuning
from ratelab.lab.tune.tuning import MAX_DEFAULT_RATES
from ratelab.quota import Quota
from ratelab.report.numbers import format_factor, format_percent, format_rate
from ratelab.report.tables import Cell, Table

MIN_STRIKING_RATIO = 0.5
"""The share of a client's requests from which on errors, or missing agents, are pointed out."""


def serialize_tuning(analysis: Analysis, source: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return a tuning as `--json` prints it; `source` describes the source of the traffic."""
    tuning, check = analysis.tuning, analysis.check
    holdout = tuning.holdout
    return {
        "version": 1,
        **source,
        "offered": tuning.offered,
        "clients": tuning.clients,
        "duration": tuning.traffic.duration / 1e9,
        "tolerate": float(tuning.asked),
        "tolerate_supported": round(float(tuning.tolerate), 6),
        "rates": [
            {"rate": row.rate.rate, "needs": row.needs, "gap": row.gap and _serialize_gap(row.gap)}
            for row in tuning.rates
        ],
        "recommended": _serialize_candidate(tuning.recommended),
        "tightest": [_serialize_candidate(candidate) for candidate in tuning.tightest],
        "holdout": holdout
        and {
            **_serialize_quota(holdout.policy.quota),
            "clients": holdout.clients,
            "clients_denied": holdout.clients_denied,
            "clients_denied_ratio": holdout.clients_denied_ratio,
        },
        "outlier_count": analysis.outlier_count,
        "outliers": [_serialize_outlier(outlier) for outlier in analysis.outliers],
        "denied_in_log": analysis.denied_in_log,
        "bursts_within_second": analysis.variation.bursts_within_second,
        "hours": [asdict(row) for row in analysis.variation.hours],
        "band": analysis.variation.band and analysis.variation.band._asdict(),
        "check": check and {**_serialize_candidate(check), "passed": analysis.passed},
        "warnings": warnings,
    }


def serialize_rates(tuning: Tuning) -> list[dict[str, Any]]:
    """Return a row for each rate, with the parts of its gap, as `--csv` writes it."""
    empty = dict.fromkeys(("below", "above", "ratio", "clients_above", "requests_above_ratio"))
    return [
        {
            "rate": row.rate.rate,
            **row.needs,
            **{f"gap_{name}": value for name, value in (_serialize_gap(row.gap) if row.gap else empty).items()},
            "burst": row.burst,
        }
        for row in tuning.rates
    ]


def _serialize_outlier(outlier: Outlier) -> dict[str, Any]:
    signals = outlier.signals or Signals()
    return {
        "client": outlier.client,
        "need": outlier.need,
        "requests": outlier.requests,
        "requests_ratio": outlier.requests_ratio,
        "gap_variation": outlier.gap_variation,
        "client_errors_ratio": _round(signals.client_errors_ratio),
        "paths_ratio": _round(signals.paths_ratio),
        "agents": signals.agent_count,
        "empty_agent_ratio": _round(signals.empty_agent_ratio),
        "likely_shared": outlier.is_shared,
        "regular": outlier.is_regular,
    }


def _round(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 6)


def _serialize_gap(gap: Gap) -> dict[str, Any]:
    return {
        "below": gap.below,
        "above": gap.above,
        "ratio": round(gap.ratio, 4),
        "clients_above": gap.clients_above,
        "requests_above_ratio": round(gap.requests_above_ratio, 6),
    }


def _serialize_candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "algorithm": candidate.policy.name,
        **_serialize_quota(candidate.policy.quota),
        "clients_denied": candidate.clients_denied,
        "clients_denied_ratio": candidate.clients_denied_ratio,
        "requests_denied": candidate.requests_denied,
        "requests_denied_ratio": candidate.requests_denied_ratio,
        "margin_below": candidate.margin_below,
        "margin_above": candidate.margin_above,
    }


def _serialize_quota(quota: Quota) -> dict[str, Any]:
    return {"rate": quota.rate, "burst": quota.burst}


def select_rates(tuning: Tuning, most: int) -> Sequence[RateNeeds]:
    """Return at most `most` rates around the recommended one."""
    rows = tuning.rates
    place = rows.index(find_recommended_rate(tuning))
    first = max(0, min(place - most // 2, len(rows) - most))
    return rows[first : first + most]


def build_needs_table(tuning: Tuning, most: int = MAX_DEFAULT_RATES) -> Table:
    """Return the needs at each rate, of at most `most` rates around the recommended one."""
    return Table(
        "Burst that a client needs at a rate to be denied nothing",
        ["rate", "half of clients", "99 %", "99.9 %", "all", "largest gap"],
        [
            (
                format_rate(row.rate),
                [
                    *(Cell(f"{row.needs[name]:,}") for name in ("p50", "p99", "p999", "max")),
                    Cell("none" if row.gap is None else f"{row.gap.below:,} to {row.gap.above:,}"),
                ],
            )
            for row in select_rates(tuning, most)
        ],
    )


def build_outliers_table(analysis: Analysis, most: int) -> Table | None:
    """Return the clients that the recommended quota denies something, at most `most`; None if there are none.

    For an algorithm of windows, there is no column for the burst that they need.
    """
    if not analysis.outliers:
        return None
    listed = analysis.outliers[:most]
    rest = f": {len(listed):,} of {analysis.outlier_count:,}, in the order of their needs"
    skipped = int(not _has_needs(analysis.tuning))
    return Table(
        f"Clients that the recommended quota denies{rest if len(listed) < analysis.outlier_count else ''}",
        ["client", *["burst needed", "requests", "4xx", "paths/request", "agents", "looks like"][skipped:]],
        [(outlier.client, _build_outlier_cells(outlier)[skipped:]) for outlier in listed],
        cut_names=True,
    )


def _has_needs(tuning: Tuning) -> bool:
    """Return whether the recommended quota denies a client something if and only if it needs more than the burst."""
    return traits_of(tuning.recommended.policy.algorithm).admits_need


def _build_outlier_cells(outlier: Outlier) -> list[Cell]:
    signals = outlier.signals or Signals()
    errors, paths, agents = signals.client_errors_ratio, signals.paths_ratio, signals.agent_count
    return [
        Cell(f"{outlier.need:,}"),
        Cell(f"{outlier.requests:,}"),
        Cell("-" if errors is None else format_percent(errors)),
        Cell("-" if paths is None else format_factor(float(f"{paths:.2g}"))),
        Cell("-" if agents is None else f"{agents:,}"),
        Cell(_name_look(outlier), is_name=True),
    ]


def _name_look(outlier: Outlier) -> str:
    """Return what the signals of a client suggest."""
    signals = outlier.signals
    if outlier.is_shared:
        return "shared address"
    if outlier.is_regular:
        return "regular script"
    if outlier.is_crawler:
        return "crawler"
    if signals is not None and (signals.empty_agent_ratio or 0) > MIN_STRIKING_RATIO:
        return "no agent"
    if signals is not None and (signals.client_errors_ratio or 0) > MIN_STRIKING_RATIO:
        return "many errors"
    return "-"


def find_recommended_rate(tuning: Tuning) -> RateNeeds:
    """Return the needs at the recommended rate."""
    return next(row for row in tuning.rates if row.rate.rate == tuning.recommended.policy.quota.rate)
