"""Tuning as tables, as sentences and as plain values."""

from __future__ import annotations

from typing import Any

from ratelab.lab.tune import Candidate, Gap, RateNeeds, Tuning
from ratelab.lab.tune.tuning import MIN_CLEAR_GAP
from ratelab.quota import Quota
from ratelab.report.numbers import format_part, format_percent, format_quota, format_rate, pluralize
from ratelab.report.tables import Cell, Table

MAX_TIGHTEST = 5
"""How many of the tightest quotas are listed."""


def serialize_tuning(tuning: Tuning, source: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
    """Return a tuning as `--json` prints it; `source` describes the source of the traffic."""
    holdout = tuning.holdout
    return {
        "version": 1,
        **source,
        "offered": tuning.offered,
        "clients": tuning.clients,
        "tolerate": float(tuning.tolerate),
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
        "warnings": warnings,
    }


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


def build_needs_table(tuning: Tuning) -> Table:
    """Return a row for each rate: the burst with which it denies this part of the clients nothing."""
    return Table(
        "Burst that a rate needs to deny nothing to this share of the clients",
        ["rate", "50 %", "99 %", "99.9 %", "all", "gap"],
        [
            (
                format_rate(row.rate),
                [
                    *(Cell(f"{row.needs[name]:,}") for name in ("p50", "p99", "p999", "max")),
                    Cell("none" if row.gap is None else f"{row.gap.below:,} to {row.gap.above:,}"),
                ],
            )
            for row in tuning.rates
        ],
    )


def describe_recommendation(tuning: Tuning) -> list[str]:
    """Describe the recommended quota, whom it denies, and how far it is from the nearest needs."""
    best = tuning.recommended
    sentences = [f"Recommended: {best.policy.name}, {format_quota(best.policy.quota)}."]
    if best.clients_denied:
        clients = format_part(best.clients_denied, tuning.clients, "client")
        requests = format_part(best.requests_denied, tuning.offered, "request")
        sentences.append(f"On this traffic it denies {requests}, to {clients}.")
    else:
        sentences.append("On this traffic it denies no request.")
    if best.margin_below is not None:
        margin = f"The burst is {best.margin_below:.2g} times the largest need that it covers"
        if best.margin_above is not None:
            margin += f"; the smallest need that it does not cover is {best.margin_above:.2g} times the burst"
        sentences.append(f"{margin}.")
    return sentences


def describe_gap(tuning: Tuning) -> list[str]:
    """Describe the gap at the recommended rate, and how many clients lie above it."""
    row = find_recommended_rate(tuning)
    if row.gap is None or row.gap.ratio < MIN_CLEAR_GAP:
        return ["No clear gap separates the clients that need most from the others."]
    above = format_part(row.gap.clients_above, tuning.clients, "client")
    return [
        f"At {format_rate(row.rate)}, {above} {'need' if row.gap.clients_above > 1 else 'needs'} "
        f"{row.gap.above:,} or more, {row.gap.ratio:.2g} times the next lower need; "
        f"they sent {format_percent(row.gap.requests_above_ratio)} of the requests. Look at them before you deny them."
    ]


def find_recommended_rate(tuning: Tuning) -> RateNeeds:
    """Return the needs at the recommended rate."""
    quota = tuning.recommended.policy.quota
    return next(row for row in tuning.rates if Quota.of(row.rate, quota.burst) == quota)


def describe_tightest(tuning: Tuning) -> str:
    """List the smallest bursts within the tolerance."""
    listed = [
        f"{format_quota(candidate.policy.quota)}"
        if candidate.policy.name == tuning.recommended.policy.name
        else f"{candidate.policy.name} {format_quota(candidate.policy.quota)}"
        for candidate in tuning.tightest[:MAX_TIGHTEST]
    ]
    return f"Tightest that deny at most {format_percent(float(tuning.tolerate))} of clients: {'; '.join(listed)}."


def describe_holdout(tuning: Tuning) -> str:
    """Describe the check on the part of the time that was not used."""
    holdout = tuning.holdout
    if holdout is None:
        return "Not checked on a part of the time that was held out."
    quota = format_quota(holdout.policy.quota)
    if not holdout.clients_denied:
        denied = f"none of {pluralize(holdout.clients, 'client')}"
    else:
        denied = format_part(holdout.clients_denied, holdout.clients, "client")
    return f"Check: the earlier part of the time recommends {quota}; in the rest, that denies {denied}."


def list_warnings(tuning: Tuning) -> list[str]:
    """List what limits the trust in the recommendation."""
    warnings = []
    if not tuning.is_supported:
        warnings.append(
            f"{pluralize(tuning.clients, 'client')} support a tolerance of {format_percent(float(tuning.tolerate))}, "
            "not a smaller one: use a longer log, or --tolerate"
        )
    if tuning.recommended.clients_denied > tuning.tolerate * tuning.clients:
        warnings.append(
            f"{pluralize(tuning.recommended.clients_denied, 'client')} above the gap are more than the tolerance of "
            f"{format_percent(float(tuning.tolerate))}"
        )
    return warnings
