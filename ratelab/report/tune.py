"""Tuning as tables, as sentences and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ratelab.lab.traces.inspection import Signals
from ratelab.lab.tune import Analysis, Candidate, Gap, Outlier, RateNeeds, Tuning
from ratelab.lab.tune.population import MIN_CLEAR_GAP
from ratelab.lab.tune.tuning import MAX_DEFAULT_RATES
from ratelab.quota import Quota, about
from ratelab.report.numbers import format_part, format_percent, format_quota, format_rate, join_names, pluralize
from ratelab.report.tables import Cell, Table

MIN_STRIKING_RATIO = 0.5
"""The share of a client's requests from which on errors, or missing agents, are pointed out."""

MIN_GAP_CLIENTS = 100
"""Clients from which on there are needs above the 99th percentile, and so a gap."""

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MAX_TIGHTEST = 5
"""How many of the tightest quotas are listed."""


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
        "bursts_within_second": analysis.bursts_within_second,
        "hours": [asdict(row) for row in analysis.hours],
        "band": analysis.band and analysis.band._asdict(),
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
    """Return the clients that need more than the recommended burst, at most `most`; None if there are none."""
    if not analysis.outliers:
        return None
    listed = analysis.outliers[:most]
    count = pluralize(analysis.outlier_count, "client")
    verb = "needs" if analysis.outlier_count == 1 else "need"
    rest = ", those that need most" if len(listed) < analysis.outlier_count else ""
    return Table(
        f"{count} {verb} more than the recommended burst{rest}",
        ["client", "burst needed", "requests", "4xx", "paths per request", "agents", "looks like"],
        [(outlier.client, _build_outlier_cells(outlier)) for outlier in listed],
        cut_names=True,
    )


def _build_outlier_cells(outlier: Outlier) -> list[Cell]:
    signals = outlier.signals or Signals()
    errors, paths, agents = signals.client_errors_ratio, signals.paths_ratio, signals.agent_count
    return [
        Cell(f"{outlier.need:,}"),
        Cell(f"{outlier.requests:,}"),
        Cell("-" if errors is None else format_percent(errors)),
        Cell("-" if paths is None else f"{paths:.2g}"),
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
    if signals is not None and (signals.empty_agent_ratio or 0) > MIN_STRIKING_RATIO:
        return "no agent"
    if signals is not None and (signals.client_errors_ratio or 0) > MIN_STRIKING_RATIO:
        return "many errors"
    return "-"


def describe_tuned_traffic(tuning: Tuning) -> str:
    """Return the number of requests and of clients that sent some, and the duration."""
    requests, clients = pluralize(tuning.offered, "request"), pluralize(tuning.clients, "client")
    return f"{requests} from {clients} in {about(tuning.traffic.duration)}"


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
        below = f"{best.margin_below:.3g} times " if best.margin_below > 1 else ""
        above = "" if best.margin_above is None else f"; the next need is {best.margin_above:.3g} times the burst"
        sentences.append(f"The burst is {below}the largest need that it covers{above}.")
    return sentences


def describe_gap(tuning: Tuning) -> list[str]:
    """Describe the gap at the recommended rate, and how many clients lie above it."""
    row = find_recommended_rate(tuning)
    if row.gap is None or row.gap.ratio < MIN_CLEAR_GAP:
        return ["No clear gap separates the clients that need most from the others."]
    above = format_part(row.gap.clients_above, tuning.clients, "client")
    return [
        f"Gap at {format_rate(row.rate)}: {above} {'need' if row.gap.clients_above > 1 else 'needs'} "
        f"{row.gap.above:,} or more, the others at most {row.gap.below:,}; "
        f"they sent {format_percent(row.gap.requests_above_ratio)} of requests."
    ]


def describe_shared(analysis: Analysis) -> list[str]:
    """Warn of outliers that are likely shared addresses."""
    shared = [outlier.client for outlier in analysis.outliers if outlier.is_shared]
    if not shared:
        return []
    names = join_names([*shared[:2], *([f"{len(shared) - 2} more"] if len(shared) > 2 else [])])
    kind = "are likely shared addresses" if len(shared) > 1 else "is likely a shared address"
    return [f"{names} {kind}: look before you deny."]


def describe_check(analysis: Analysis) -> list[str]:
    """Describe the result of the check of a policy."""
    check, tuning = analysis.check, analysis.tuning
    if check is None:
        return []
    clients = format_part(check.clients_denied, tuning.clients, "client") if check.clients_denied else "no client"
    requests = format_part(check.requests_denied, tuning.offered, "request")
    denied = f"denies {requests}, to {clients}" if check.clients_denied else "denies nothing"
    verdict, quota = "Passed" if analysis.passed else "Failed", format_quota(check.policy.quota)
    tolerated = f"at most {format_percent(float(tuning.tolerate))} of clients tolerated"
    return [f"{verdict}: {check.policy.name}, {quota}, {denied}; {tolerated}."]


def describe_variation(analysis: Analysis) -> list[str]:
    """Describe how the recommended burst depends on the days, and when clients need most."""
    sentences = []
    if analysis.band is not None:
        low, high, days = analysis.band
        sentences.append(f"Other samples of the {days} days would recommend bursts from {low:,} to {high:,}.")
    if analysis.hours:
        hour = max(analysis.hours, key=lambda row: row.ordinary)
        sentences.append(
            f"Hour of the week with the largest need below the burst: {WEEKDAYS[hour.weekday]}, {hour.hour}:00 UTC "
            f"({hour.ordinary:,})."
        )
    return sentences


def find_recommended_rate(tuning: Tuning) -> RateNeeds:
    """Return the needs at the recommended rate."""
    quota = tuning.recommended.policy.quota
    return next(row for row in tuning.rates if Quota.of(row.rate, quota.burst) == quota)


def describe_tightest(tuning: Tuning) -> str:
    """List the smallest bursts within the tolerance."""
    kinds = {candidate.policy.name for candidate in tuning.tightest}
    rates = [row.rate.rate for row in select_rates(tuning, max(1, MAX_TIGHTEST // len(kinds)))]
    listed = [
        f"{f'{candidate.policy.name} ' if len(kinds) > 1 else ''}{format_quota(candidate.policy.quota)}"
        for candidate in tuning.tightest
        if candidate.policy.quota.rate in rates
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
    return f"Check: the earlier part of the time recommends {quota}; in the later part, that denies {denied}."


def list_warnings(analysis: Analysis) -> list[str]:
    """List what limits the trust in the recommendation."""
    tuning, denied = analysis.tuning, analysis.denied_in_log
    recommended, warnings = tuning.recommended, []
    if denied is not None and any(denied.values()):
        counts = join_names([f"{count:,} times {status}" for status, count in denied.items() if count])
        warnings.append(f"the log already has denials ({counts}): clients that had to wait may need more than it shows")
    if tuning.tolerate > tuning.asked:
        warnings.append(
            f"{pluralize(tuning.clients, 'client')} support a tolerance of {format_percent(float(tuning.tolerate))}, "
            "not a smaller one: use a longer log, or --tolerate"
        )
    if tuning.clients < MIN_GAP_CLIENTS:
        warnings.append(
            f"fewer than {MIN_GAP_CLIENTS} clients show no outliers: the recommendation covers all; "
            "leave some out with --ignore"
        )
    if recommended.clients_denied > tuning.tolerate * tuning.clients:
        warnings.append(
            f"{pluralize(recommended.clients_denied, 'client')} above the gap are more than the tolerance of "
            f"{format_percent(float(tuning.tolerate))}"
        )
    if tuning.traffic.duration < recommended.policy.quota.window:
        warnings.append(
            f"the traffic is shorter than the {about(recommended.policy.quota.window)} in which the rate grants the "
            "burst: use a longer log"
        )
    bursts = analysis.bursts_within_second
    if bursts is not None and len({*bursts.values()}) > 1:
        warnings.append(
            f"times are whole seconds: the burst is {bursts['spread']:,} if the requests of a second are spread over "
            f"it, {bursts['start']:,} if all are at its start"
        )
    return warnings
