"""Settings of Django for the adapters of its packages."""

from typing import Any

import django
from django.conf import settings


def configure(cache: dict[str, str], **options: Any) -> None:
    """Set Django up once, with `cache` as the default cache."""
    if not settings.configured:
        settings.configure(
            CACHES={"default": cache},
            SECRET_KEY="league",  # noqa: S106
            ALLOWED_HOSTS=["*"],
            DEFAULT_CHARSET="utf-8",
            **options,
        )
        django.setup()


LOCAL_MEMORY = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def redis_cache(url: str) -> dict[str, str]:
    """Return the settings of Django's cache on a Redis-protocol server."""
    return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}


def use_server(url: str) -> None:
    """Have the default cache use a server, which may be another one than that of the settings."""
    from django.core.cache import caches
    from django.core.cache.backends.redis import RedisCache

    caches["default"] = RedisCache(url, {})
