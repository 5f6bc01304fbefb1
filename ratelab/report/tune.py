"""Tuning as sentences: the recommendation, what supports it, and the cautions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ratelab.algorithms import Policy
from ratelab.lab.tune import Analysis, Tuning
from ratelab.lab.tune.population import MIN_CLEAR_GAP
from ratelab.quota import about
from ratelab.report.numbers import (
    format_factor,
    format_part,
    format_percent,
    format_quota,
    format_rate,
    join_names,
    pluralize,
)
from ratelab.report.tune_tables import find_recommended_rate, select_rates

MIN_GAP_CLIENTS = 100
"""Clients from which on there are needs above the 99th percentile, and so a gap."""

MIN_LOWER_GAP = 5
"""Ratio of neighbouring needs below the 99th percentile from which on the clients above may be outliers, too."""

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

MAX_BURST_FACTOR = 2
"""The factor by which the burst of the earlier part of the time may differ from the recommended one."""

MAX_TIGHTEST = 5
"""How many of the tightest quotas are listed."""


class Report(NamedTuple):
    """The sentences of a report on a tuning, by part, in their order."""

    recommendation: list[str]
    details: list[str]
    check: list[str]
    cautions: list[str]


def describe_tuning(
    analysis: Analysis, warnings: Sequence[str], tightest: int = MAX_TIGHTEST, variation: bool = True
) -> Report:
    """Describe a tuning: at most `tightest` of the tightest quotas, and days and hours only with `variation`."""
    tuning = analysis.tuning
    return Report(
        [*describe_recommendation(tuning), *describe_gap(tuning), *describe_shared(analysis)],
        [
            *describe_tightest(tuning, tightest),
            *(describe_variation(analysis) if variation else []),
            describe_holdout(tuning),
        ],
        describe_check(analysis),
        [f"Caution: {warning}." for warning in warnings],
    )


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
        below = f"{format_factor(best.margin_below)} times " if best.margin_below > 1 else ""
        if best.margin_above is None:
            sentences.append(f"The burst is {below}the largest need.")
        else:
            above = format_factor(best.margin_above)
            sentences.append(f"The burst is {below}the need below it, and the need above is {above} times it.")
    return sentences


def describe_gap(tuning: Tuning) -> list[str]:
    """Describe the gap at the recommended rate, and how many clients lie above it; nothing for few clients."""
    row = find_recommended_rate(tuning)
    if tuning.clients < MIN_GAP_CLIENTS:
        return []
    if row.gap is None or row.gap.ratio < MIN_CLEAR_GAP:
        return ["No clear gap separates the clients that need most from the others."]
    above = format_part(row.gap.clients_above, tuning.clients, "client")
    return [
        f"Gap at {format_rate(row.rate)}: {above}, with {format_percent(row.gap.requests_above_ratio)} of requests, "
        f"{'need' if row.gap.clients_above > 1 else 'needs'} {row.gap.above:,} or more, the others at most "
        f"{row.gap.below:,}."
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
    if analysis.variation.band is not None:
        low, high, days = analysis.variation.band
        bursts = f"bursts from {low:,} to {high:,}" if low < high else f"the burst {low:,}"
        sentences.append(f"Other samples of the {days} days would recommend {bursts}.")
    if analysis.variation.hours:
        hour = max(analysis.variation.hours, key=lambda row: row.ordinary)
        clients = "The other clients" if analysis.outlier_count else "Clients"
        sentences.append(
            f"{clients} need most on {WEEKDAYS[hour.weekday]} from {hour.hour}:00 UTC on: a burst of {hour.ordinary:,}."
        )
    return sentences


def describe_tightest(tuning: Tuning, most: int) -> list[str]:
    """List the smallest bursts within the tolerance, about `most`."""
    kinds = {candidate.policy.name for candidate in tuning.tightest}
    if not kinds:
        return []
    rates = [row.rate.rate for row in select_rates(tuning, max(1, most // len(kinds)))]
    listed = [
        f"{f'{candidate.policy.name} ' if len(kinds) > 1 else ''}{format_quota(candidate.policy.quota)}"
        for candidate in tuning.tightest
        if candidate.policy.quota.rate in rates
    ]
    return [f"Tightest that deny at most {format_percent(float(tuning.tolerate))} of clients: {'; '.join(listed)}."]


def describe_holdout(tuning: Tuning) -> str:
    """Describe the check on the part of the time that was not used."""
    holdout = tuning.holdout
    if holdout is None:
        return "Not checked on a part of the time that was held out."
    quota = holdout.policy.quota
    if holdout.clients == 1 and not holdout.clients_denied:
        denied = "nothing"
    elif not holdout.clients_denied:
        denied = f"none of {pluralize(holdout.clients, 'client')}"
    else:
        denied = format_part(holdout.clients_denied, holdout.clients, "client")
    return (
        f"Check: at {format_rate(quota)}, the earlier part of the time recommends burst {quota.burst:,}; in the last "
        f"part, that denies {denied}."
    )


def list_warnings(analysis: Analysis) -> list[str]:
    """List what limits the trust in the recommendation."""
    tuning, denied, quota = analysis.tuning, analysis.denied_in_log, analysis.tuning.recommended.policy.quota
    tolerated, warnings = format_percent(float(tuning.tolerate)), []
    if denied is not None and any(denied.values()):
        counts = ", ".join(f"{count:,} with {status}" for status, count in denied.items() if count)
        warnings.append(f"requests in the log were already denied ({counts}): clients that had to wait may need more")
    if tuning.tolerate > tuning.asked:
        remedy = ": use a longer log" if tuning.asked else ""
        verb = "support" if tuning.clients > 1 else "supports"
        warnings.append(f"{pluralize(tuning.clients, 'client')} {verb} no tolerance below {tolerated}{remedy}")
    if tuning.clients < MIN_GAP_CLIENTS:
        warnings.append(f"fewer than {MIN_GAP_CLIENTS} clients: no outliers are sought; --ignore leaves bots out")
    warnings += _list_lower_gap(tuning)
    if tuning.recommended.clients_denied > tuning.tolerate * tuning.clients:
        tightest = (candidate.policy for candidate in tuning.tightest)
        bursts = [f"burst {policy.quota.burst:,} or " for policy in tightest if _is_alike(policy, tuning)]
        warnings.append(f"more than {tolerated} of clients are denied: if these are good, use {''.join(bursts)}--good")
    if tuning.holdout is not None and not _are_near(tuning.holdout.policy.quota.burst, quota.burst):
        warnings.append(
            f"without the last part of the time, the burst would be {tuning.holdout.policy.quota.burst:,}: "
            "use a longer log"
        )
    if tuning.traffic.duration < quota.window:
        warnings.append(
            f"the traffic is shorter than the {about(quota.window)} in which the rate grants the burst: "
            "use a longer log"
        )
    bursts_within_second = analysis.variation.bursts_within_second
    if bursts_within_second is not None and len({*bursts_within_second.values()}) > 1:
        spread, start = bursts_within_second["spread"], bursts_within_second["start"]
        warnings.append(
            f"times are whole seconds: the burst is {spread:,} if requests are spread over them, {start:,} if all "
            "are at the start"
        )
    return warnings + _list_missing(tuning)


def _are_near(burst: int, other: int) -> bool:
    """Return whether two bursts differ by at most a factor of two."""
    return max(burst, other) <= MAX_BURST_FACTOR * min(burst, other)


def _is_alike(policy: Policy, tuning: Tuning) -> bool:
    """Return whether a policy has the algorithm and the rate of the recommended one."""
    best = tuning.recommended.policy
    return policy.name == best.name and policy.quota.rate == best.quota.rate


def _list_lower_gap(tuning: Tuning) -> list[str]:
    """Point out a jump of the needs below the 99th percentile, above which the clients may be bots."""
    row = find_recommended_rate(tuning)
    gap = row.lower_gap
    if gap is None or gap.below >= row.ordinary or gap.ratio < MIN_LOWER_GAP:
        return []
    above = format_part(gap.clients_above, tuning.clients, "client")
    return [
        f"{above} {'need' if gap.clients_above > 1 else 'needs'} {gap.above:,} or more, the others at most "
        f"{gap.below:,}: if the former are bots, use --ignore"
    ]


def _list_missing(tuning: Tuning) -> list[str]:
    """Name the algorithms that have no quota within the tolerance at some rate."""
    found = Counter(candidate.policy.name for candidate in tuning.tightest)
    return [
        f"{kind.name} has no quota within the tolerance at {pluralize(len(tuning.rates) - found[kind.name], 'rate')}"
        for kind in tuning.kinds
        if found[kind.name] < len(tuning.rates)
    ]
