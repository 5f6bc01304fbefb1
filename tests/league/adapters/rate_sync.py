"""Memory engine of rate-sync, one limiter for each key."""

from adapting import bounded, log_bound
from ratesync.engines.memory import MemoryRateLimiter


@bounded(log_bound)
def sliding_window(limit, period, burst):
    limiters = {}

    async def hit(key):
        if key not in limiters:
            limiters[key] = MemoryRateLimiter(key, limit=limit, window_seconds=int(period))
            await limiters[key].initialize()
        return await limiters[key].try_acquire(), None

    return hit
