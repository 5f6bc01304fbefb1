"""A Django project for tests: its settings, which tests override, and the handlers of a server."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.test import override_settings

MIDDLEWARE = "ratelab.django.RateLimitMiddleware"

if not settings.configured:
    settings.configure(
        SECRET_KEY="a secret key",  # noqa: S106
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="django_pages",
        MIDDLEWARE=[MIDDLEWARE],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        RATELAB={"RATE": "5/minute"},
    )
    django.setup()


def configure(**options: Any) -> None:
    """Set `RATELAB` for handlers that are created from now on; those that exist keep their limits."""
    settings.RATELAB = options


def override(**options: Any) -> override_settings:
    """Override `RATELAB` in a block, as the tests of a project do."""
    return override_settings(RATELAB=options)
