"""Clients and packages that decide on the same server, for the store benchmark.

They are measured if they are installed. Each package decides by its token bucket or by the fastest algorithm that it
has, configured as its documentation recommends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from timing import Bar

from ratelab import create
from ratelab.stores.valkey.script import Script

ALGORITHM = "token-bucket"
UNREACHED_PER_SECOND = 1_000_000

Hit = Callable[[], Any]
"""Decides one hit; an awaitable for tasks."""


class StorePeer(NamedTuple):
    """A client or package that decides on the server at a port of 127.0.0.1."""

    modules: tuple[str, ...]
    """The names by which the package and its client are imported."""
    for_tasks: Callable[[int], Awaitable[Hit]]
    """Connects for the tasks of an event loop."""
    for_threads: Callable[[int], Hit] | None
    """Connects for threads; None if that is not compared."""
    bar: Bar
    """Limit for the ratio of ratelab's rate to the peer's."""


async def redis_tasks(port: int) -> Hit:
    """Call ratelab's token bucket script with `redis.asyncio`, one connection for each task."""
    script, client = _script(), import_module("redis.asyncio").Redis(port=port)
    sha = await client.script_load(script.text)
    return lambda: client.evalsha(sha, 1, script.key("client"), *script.parameters, 1)


async def glide_tasks(port: int) -> Hit:
    """Call ratelab's token bucket script with valkey-glide, which pipelines concurrent calls."""
    script, module = _script(), import_module("glide")
    configuration = module.GlideClientConfiguration([module.NodeAddress("127.0.0.1", port)])
    client = await module.GlideClient.create(configuration)
    glide_script, arguments = module.Script(script.text), [*map(str, script.parameters), "1"]
    return lambda: client.invoke_script(glide_script, [script.key("client")], arguments)


async def limits_tasks(port: int) -> Hit:
    """Decide with limits by its fixed window, the fastest of its algorithms."""
    storage = import_module("limits.aio.storage").RedisStorage(f"async+valkey://127.0.0.1:{port}")
    limiter = import_module("limits.aio.strategies").FixedWindowRateLimiter(storage)
    limit = import_module("limits").RateLimitItemPerSecond(UNREACHED_PER_SECOND)
    return lambda: limiter.hit(limit, "client")


def limits_threads(port: int) -> Hit:
    """Decide with limits by its fixed window, for threads."""
    storage = import_module("limits.storage").RedisStorage(f"valkey://127.0.0.1:{port}")
    limiter = import_module("limits.strategies").FixedWindowRateLimiter(storage)
    limit = import_module("limits").RateLimitItemPerSecond(UNREACHED_PER_SECOND)
    return lambda: limiter.hit(limit, "client")


async def throttled_tasks(port: int) -> Hit:
    """Decide with throttled-py by its token bucket."""
    return _throttled(import_module("throttled.asyncio"), port)


def throttled_threads(port: int) -> Hit:
    """Decide with throttled-py by its token bucket, for threads."""
    return _throttled(import_module("throttled"), port)


async def pyrate_tasks(port: int) -> Hit:
    """Decide with pyrate-limiter by its log, its only algorithm."""
    module = import_module("pyrate_limiter")
    client = import_module("redis.asyncio").Redis(port=port)
    rates = [module.Rate(UNREACHED_PER_SECOND, module.Duration.SECOND)]
    limiter = module.Limiter(await module.RedisBucket.init(rates, client, "pyrate-tasks"))
    return lambda: limiter.try_acquire_async("client", blocking=False)


def pyrate_threads(port: int) -> Hit:
    """Decide with pyrate-limiter by its log, for threads."""
    module = import_module("pyrate_limiter")
    client = import_module("redis").Redis(port=port)
    rates = [module.Rate(UNREACHED_PER_SECOND, module.Duration.SECOND)]
    limiter = module.Limiter(module.RedisBucket.init(rates, client, "pyrate-threads"))
    return lambda: limiter.try_acquire("client", blocking=False)


def _script() -> Script:
    return Script(create(ALGORITHM, f"{UNREACHED_PER_SECOND}/s"))


def _throttled(module: Any, port: int) -> Hit:
    store = module.RedisStore(server=f"redis://127.0.0.1:{port}/0")
    quota = module.rate_limiter.per_sec(UNREACHED_PER_SECOND, burst=UNREACHED_PER_SECOND)
    throttle = module.Throttled(key="client", using="token_bucket", quota=quota, store=store)
    return lambda: throttle.limit("client")


PEERS = {
    "redis.asyncio": StorePeer(("redis",), redis_tasks, None, Bar(">=", 6)),
    "valkey-glide": StorePeer(("glide",), glide_tasks, None, Bar(">", 1)),
    "limits": StorePeer(("limits",), limits_tasks, limits_threads, Bar(">", 1)),
    "throttled-py": StorePeer(("throttled", "redis"), throttled_tasks, throttled_threads, Bar(">", 1)),
    "pyrate-limiter": StorePeer(("pyrate_limiter", "redis"), pyrate_tasks, pyrate_threads, Bar(">", 1)),
}
"""Peers by the name of the package or of the called module."""


def installed_peers() -> dict[str, StorePeer]:
    """Return the peers that are installed."""
    return {name: peer for name, peer in PEERS.items() if all(map(find_spec, peer.modules))}
