"""Limiter of token-bucket."""

from adapting import bounded, bucket_bound
from token_bucket import Limiter, MemoryStorage


@bounded(bucket_bound)
def memory(limit, period, burst):
    limiter = Limiter(limit / period, burst, MemoryStorage())
    return lambda key: (limiter.consume(key), None)
