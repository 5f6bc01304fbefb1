"""A Django project for real servers: the pages of the suite of doors, behind limits that the environment sets."""

from __future__ import annotations

import os
from typing import Any

import django_pages
import django_project
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from ratelab.django import ratelimit


@ratelimit("2/h")
def search(request: Any) -> HttpResponse:
    return HttpResponse("found")


@ratelimit("2/h")
async def lookup(request: Any) -> HttpResponse:
    return HttpResponse("found")


def healthz(request: Any) -> HttpResponse:
    return HttpResponse("ok")


urlpatterns = [
    *django_pages.urlpatterns,
    *(path(page.__name__, page) for page in (search, lookup, healthz)),
    path("", healthz),
]

django_project.configure(
    RATE=os.environ.get("RATE", "5/h"),
    STORE=os.environ.get("STORE"),
    DEADLINE=30,
    EXEMPT=["/healthz"],
    TRUSTED_PROXIES=os.environ.get("TRUSTED", "").split(),
)
settings.ROOT_URLCONF = "limited_django"
wsgi = get_wsgi_application()
asgi = get_asgi_application()
