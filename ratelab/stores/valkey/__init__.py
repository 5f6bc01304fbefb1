"""Limiters whose keys live in Valkey or Redis: all that ask the same server share one quota."""

from ratelab.stores.valkey.async_limiter import AsyncValkeyLimiter
from ratelab.stores.valkey.sync_limiter import ValkeyLimiter

__all__ = ["AsyncValkeyLimiter", "ValkeyLimiter"]
