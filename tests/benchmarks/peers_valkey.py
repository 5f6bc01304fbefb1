"""Who else decides on the same server: clients that call the same script, and other libraries.

They are measured where they are installed. Each library decides by its token bucket, or by the cheapest that it has,
set up as its documentation says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from ratelab.stores.valkey.script import Script

ALGORITHM = "token-bucket"
LIMIT = 1_000_000
"""So many a second, and at once, are never reached."""

Hit = Callable[[], Any]
"""Decides one hit; for tasks, when it is awaited."""


class Rival(NamedTuple):
    """Somebody else who decides on the server at a port of 127.0.0.1."""

    packages: tuple[str, ...]
    """The names by which it, and the client that it speaks through, are imported."""
    for_tasks: Callable[[int], Awaitable[Hit]]
    """Connects for the tasks of an event loop."""
    for_threads: Callable[[int], Hit] | None
    """Connects for threads; None if that is not compared."""
    bar: str
    """How much more ratelab should decide."""


async def redis_tasks(port: int) -> Hit:
    """Call the script of ratelab's own token bucket with `redis.asyncio`, a connection for each task."""
    script, client = _script(), import_module("redis.asyncio").Redis(port=port)
    sha = await client.script_load(script.text)
    return lambda: client.evalsha(sha, 1, script.key("client"), *script.parameters, 1)


async def glide_tasks(port: int) -> Hit:
    """Call it with valkey-glide, which sends what waits together."""
    script, module = _script(), import_module("glide")
    configuration = module.GlideClientConfiguration([module.NodeAddress("127.0.0.1", port)])
    client = await module.GlideClient.create(configuration)
    called, arguments = module.Script(script.text), [*map(str, script.parameters), "1"]
    return lambda: client.invoke_script(called, [script.key("client")], arguments)


async def limits_tasks(port: int) -> Hit:
    """Decide with limits by its fixed window, its cheapest."""
    storage = import_module("limits.aio.storage").RedisStorage(f"async+valkey://127.0.0.1:{port}")
    limiter = import_module("limits.aio.strategies").FixedWindowRateLimiter(storage)
    limit = import_module("limits").RateLimitItemPerSecond(LIMIT)
    return lambda: limiter.hit(limit, "client")


def limits_threads(port: int) -> Hit:
    """Do the same for threads."""
    storage = import_module("limits.storage").RedisStorage(f"valkey://127.0.0.1:{port}")
    limiter = import_module("limits.strategies").FixedWindowRateLimiter(storage)
    limit = import_module("limits").RateLimitItemPerSecond(LIMIT)
    return lambda: limiter.hit(limit, "client")


async def throttled_tasks(port: int) -> Hit:
    """Decide with throttled-py by its token bucket."""
    return _throttled(import_module("throttled.asyncio"), port)


def throttled_threads(port: int) -> Hit:
    """Do the same for threads."""
    return _throttled(import_module("throttled"), port)


async def pyrate_tasks(port: int) -> Hit:
    """Decide with pyrate-limiter by its log, the one it has."""
    module = import_module("pyrate_limiter")
    client = import_module("redis.asyncio").Redis(port=port)
    rates = [module.Rate(LIMIT, module.Duration.SECOND)]
    limiter = module.Limiter(await module.RedisBucket.init(rates, client, "pyrate-tasks"))
    return lambda: limiter.try_acquire_async("client", blocking=False)


def pyrate_threads(port: int) -> Hit:
    """Do the same for threads."""
    module = import_module("pyrate_limiter")
    client = import_module("redis").Redis(port=port)
    rates = [module.Rate(LIMIT, module.Duration.SECOND)]
    limiter = module.Limiter(module.RedisBucket.init(rates, client, "pyrate-threads"))
    return lambda: limiter.try_acquire("client", blocking=False)


def _script() -> Script:
    return Script(ALGORITHM, f"{LIMIT}/s")


def _throttled(module: Any, port: int) -> Hit:
    store = module.RedisStore(server=f"redis://127.0.0.1:{port}/0")
    quota = module.rate_limiter.per_sec(LIMIT, burst=LIMIT)
    throttle = module.Throttled(key="client", using="token_bucket", quota=quota, store=store)
    return lambda: throttle.limit("client")


RIVALS = {
    "redis.asyncio": Rival(("redis",), redis_tasks, None, ">= 6x"),
    "valkey-glide": Rival(("glide",), glide_tasks, None, "> 1x"),
    "limits": Rival(("limits",), limits_tasks, limits_threads, "> 1x"),
    "throttled-py": Rival(("throttled", "redis"), throttled_tasks, throttled_threads, "> 1x"),
    "pyrate-limiter": Rival(("pyrate_limiter", "redis"), pyrate_tasks, pyrate_threads, "> 1x"),
}
"""Others by the name of the package or the module that is called."""


def installed() -> dict[str, Rival]:
    """Return those that can be measured here."""
    return {name: rival for name, rival in RIVALS.items() if all(map(find_spec, rival.packages))}
