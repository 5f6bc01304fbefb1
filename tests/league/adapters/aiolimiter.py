"""AsyncLimiter of aiolimiter, one for each key."""

from adapting import bounded, bucket_bound, per_key
from aiolimiter import AsyncLimiter


@bounded(bucket_bound)
def async_limiter(limit, period, burst):
    limiter_of = per_key(lambda: AsyncLimiter(limit, period))

    async def hit(key, cost=1):
        limiter = limiter_of(key)
        if not limiter.has_capacity(cost):
            return False, None
        await limiter.acquire(cost)
        return True, None

    return hit
