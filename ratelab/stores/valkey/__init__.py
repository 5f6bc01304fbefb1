"""Limiters whose keys live in Valkey or Redis: all that ask the same server share one quota."""

from ratelab.stores.valkey.tasks import AsyncValkeyLimiter
from ratelab.stores.valkey.threads import ValkeyLimiter

__all__ = ["AsyncValkeyLimiter", "ValkeyLimiter"]
