"""Messages of `ratelab serve`: the banner, and the counters."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from socket import socket
from typing import TYPE_CHECKING

from ratelab.algorithms import Policy
from ratelab.http.addresses import is_address_header
from ratelab.http.counters import CounterValues
from ratelab.http.server import format_url
from ratelab.policies.description import describe_key, describe_limit

if TYPE_CHECKING:
    from ratelab.http.file_policies import FilePolicies

# --- the banner


def create_banner(
    policies: Sequence[Policy],
    file: FilePolicies | None,
    key: str,
    listeners: Sequence[socket],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Return the lines to print at the start, by label."""
    url = f"{format_url(listeners[0])}/ping"
    header = key.removeprefix("header:")
    by_address = header == key or is_address_header(header)
    client = "ip" if by_address else key
    (first, *_) = policies
    title = f"{first.algorithm.name}, {first.quota}"
    if file is not None:
        title = f"{len(policies)} {'policy' if len(policies) == 1 else 'policies'} of {file.content.path}"
    banner = {"ratelab": title, "serving": url}
    for listener in listeners[1:]:
        address = listener.getsockname()
        if isinstance(address, str):
            banner["admin"] = f"ratelab keys list --socket {shlex.quote(address)}"
        else:
            banner["metrics"] = f"{format_url(listener)}/metrics"
    if file is None:
        banner["quota"] = _describe_policy(first, client)
    else:
        banner |= {policy.name: _describe_policy(policy, client) for policy in policies} | _describe_sources(file)
    if not by_address:
        banner["note"] = f"{header} is not verified: a client that changes it counts as another client"
    banner |= extra
    banner["try"] = f"curl -i {url}" if by_address else f"curl -i -H '{header}: alice' {url}"
    banner["stop"] = "Ctrl-C"
    return banner


def _describe_policy(policy: Policy, client: str) -> str:
    """Describe a policy: `2 requests per second, at most 5 at once, for each address`."""
    route = "" if policy.match is None else f", {policy.match}"
    shadow = " (shadow: never denies)" if policy.shadow else ""
    return f"{describe_limit(policy)}, for {describe_key(policy.key or client)}{route}{shadow}"


def _describe_sources(file: FilePolicies) -> dict[str, str]:
    """Return a line about the trusted headers, if there are any: clients must not be able to set them."""
    content = file.content
    headers = [header for header in (content.plan_header, content.account_header) if header is not None]
    return {"trusted": f"{' and '.join(headers)}, which a proxy must remove from requests"} if headers else {}


def describe_proxies(proxies: Sequence[str], hops: int, key: str) -> dict[str, str]:
    """Return a line about the proxies in front, if there are any."""
    header = key.removeprefix("header:")
    name = header if is_address_header(header) and header != key else "X-Forwarded-For"
    if hops:
        return {"proxies": f"always {hops} in front; {name} is counted from the right"}
    return {"proxies": f"{name} is trusted from {', '.join(proxies)}"} if proxies else {}


# --- counters


def format_counters(values: CounterValues) -> str:
    """Format counters as `1,204 admitted, 3 waiting, 40 denied, 2 clients in memory`."""
    counts, stats, health = values
    delayed = f" ({counts.delayed:,} after a wait)" if counts.delayed else ""
    waiting = f", {counts.waiting:,} waiting" if counts.waiting else ""
    dropped = f", {counts.dropped:,} dropped from the queue" if counts.dropped else ""
    ambiguous = f", {counts.ambiguous:,} ambiguous" if counts.ambiguous else ""
    if health is None:
        end = f", {stats.keys:,} {'client' if stats.keys == 1 else 'clients'} in memory"
    elif counts.unavailable:
        end = f", {counts.unavailable:,} answered 503 because the store was down"
    else:
        end = f", {health.fallback_decisions:,} decided without the store" if health.fallback_decisions else ""
    return f"{counts.admitted:,} admitted{delayed}{waiting}, {counts.denied:,} denied{dropped}{ambiguous}{end}"
