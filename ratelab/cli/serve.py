"""`ratelab serve`: a live `/ping` behind an algorithm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratelab.errors import InputError

if TYPE_CHECKING:
    from ratelab.http.service import Service
    from ratelab.limiter import Algorithm
    from ratelab.quota import Quota
    from ratelab.stores.memory import MemoryLimiter
    from ratelab.stores.recording import RecordingLimiter


def setting(name: str, **attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make an option that the environment may set: `--rate` is `RATELAB_RATE`."""
    variable = "RATELAB_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_default=attributes.get("default") is not None, **attributes)


@click.command(short_help="Serve a live /ping behind an algorithm.")
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
@setting("--workers", type=click.IntRange(min=1), default=1, help="Processes; memory serves one.")
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
    workers: int,
    metrics_port: int | None,
    record: str | None,
    access_log: bool,
) -> None:
    """Serve GET /ping, each client held to --rate and --burst, until interrupted.

    Every option can be set in the environment too: RATELAB_RATE for --rate, and so on. RATELAB_KEY_SECRET keys the
    hash under which clients are known; without it, a random one is drawn at each start.
    """
    from ratelab.cli.extras import require

    require("serve", "serve", "uvicorn", "httptools", "prometheus_client")
    from ratelab.algorithms import find
    from ratelab.algorithms.outside import blaming
    from ratelab.cli.watch import Watch
    from ratelab.http.headers import Fields
    from ratelab.http.identity import Identity
    from ratelab.http.server import listen, run
    from ratelab.http.service import Service
    from ratelab.quota import Quota

    quota = Quota.parse(rate, burst)
    _check_workers(workers, quota)
    identity = Identity(key, trusted_proxy, trusted_hops)
    kind = find(algo)
    with ExitStack() as closing:
        listeners = [closing.enter_context(listen(host, port))]
        if metrics_port is not None:
            listeners.append(closing.enter_context(listen("127.0.0.1", metrics_port)))
        with blaming(kind):
            algorithm = kind.from_quota(quota)
            Fields(algorithm)  # which refuses what it cannot tell, before a file is made
            service = Service(_limiter(algorithm, quota, max_keys, record, closing), identity, legacy_headers)
        if access_log:
            _log_requests(service, closing)
        if metrics_port is not None:
            service.show_metrics_on(listeners[-1].getsockname())
        watch = Watch(service, live=not access_log)
        watch.begin(quota, key, listeners)
        run(service.app, listeners, watch.every_second, watch.stop)
        if not watch.end():
            raise SystemExit(1)


def _log_requests(service: Service, closing: ExitStack) -> None:
    """Have a line printed for each request, if there is anywhere to print it."""
    from ratelab.cli.lines import LineWriter

    if sys.stdout is not None:
        lines = LineWriter(sys.stdout.fileno())
        closing.callback(lines.close)
        service.log_to(lines)


def _check_workers(workers: int, quota: Quota) -> None:
    if workers > 1:
        raise InputError(
            f"{workers} workers would grant each client {workers} times {quota}, since each has a memory of its own: "
            "use --workers 1; several processes need a store that they share"
        )


def _limiter(
    algorithm: Algorithm, quota: Quota, max_keys: int, record: str | None, closing: ExitStack
) -> MemoryLimiter | RecordingLimiter:
    """Return the limiter, one that writes to the file `record` if there is to be one."""
    from ratelab.stores.memory import MemoryLimiter
    from ratelab.stores.recording import RecordingLimiter

    if record == "":
        raise InputError("the name of the file to record to is empty: name a new file, or leave out --record")
    if record is None:
        return MemoryLimiter(algorithm, max_keys=max_keys)
    try:
        file = Path(record).open("x", encoding="utf-8")  # noqa: SIM115  (closed with the limiter)
    except FileExistsError:
        raise InputError(f"{record} exists, and a recording is not written over: name a new file") from None
    except (OSError, ValueError) as error:
        reason = isinstance(error, OSError) and error.strerror
        raise InputError(f"cannot write {record}: {reason or error}") from None
    limiter = RecordingLimiter(algorithm, quota, file, max_keys=max_keys)
    closing.callback(limiter.close)
    return limiter
