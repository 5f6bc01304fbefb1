"""Limiters whose keys live in Valkey or Redis: all processes that use the same server share one quota."""

from ratelab.stores.valkey.async_limiter import AsyncValkeyLimiter
from ratelab.stores.valkey.sync_limiter import ValkeyLimiter

__all__ = ["AsyncValkeyLimiter", "ValkeyLimiter"]
