"""AsyncLimiter of aiolimiter, one for each key."""

from adapting import bounded, bucket_bound, per_key
from aiolimiter import AsyncLimiter


@bounded(bucket_bound)
def async_limiter(limit, period, burst):
    limiter_of = per_key(lambda key: AsyncLimiter(limit, period))

    async def hit(key):
        limiter = limiter_of(key)
        if not limiter.has_capacity():
            return False, None
        await limiter.acquire()
        return True, None

    return hit
