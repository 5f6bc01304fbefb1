"""The Django application `ratelab.django`: system checks of the setting `RATELAB`, of proxies and of workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004  (Django's name)
from django.urls import get_resolver

from ratelab.django.decorators import doors
from ratelab.django.door import Door
from ratelab.django.settings import LIMITS, USER, Options, Place, create_gate, read_options
from ratelab.errors import InputError
from ratelab.http.addresses import UNIX
from ratelab.http.doors import AwaitingGate, BlockingGate, check_name
from ratelab.http.identity import Identity

MIDDLEWARE = "ratelab.django.RateLimitMiddleware"
AUTHENTICATION = "AuthenticationMiddleware"
CORS = "CorsMiddleware"

PROXY_SETTINGS = ("USE_X_FORWARDED_HOST", "USE_X_FORWARDED_PORT", "SECURE_PROXY_SSL_HEADER")
"""Settings of Django that only a project behind a proxy needs."""

MIN_PREFIX_BITS = {4: 8, 6: 16}
"""Bits of the widest networks that are trusted without a warning, by the version of IP."""

_WORKERS = re.compile(r"(?:^|\s)(?:-w|--workers)[ =]?(\d+)")


class RatelabConfig(AppConfig):  # type: ignore[misc]
    """Register the system checks: list `ratelab.django` in `INSTALLED_APPS`."""

    name = "ratelab.django"
    label = "ratelab"
    verbose_name = "Rate limits"

    def ready(self) -> None:
        """Register the checks."""
        register(check_settings, Tags.security)
        register(check_deployment, Tags.security, deploy=True)


def check_settings(**_: object) -> list[CheckMessage]:
    """Check the setting, the options of decorators, the order of middleware, the proxies and the workers."""
    try:
        options = read_options()
    except InputError as error:
        return [_create_error(f"RATELAB: {error}")]
    needs_limit = bool(_find_middleware(MIDDLEWARE) or options.keys() & {*LIMITS})
    errors = {_find_error(options if needs_limit else {**options, "RATE": "1/s"}, Place("check"))}
    if errors == {None}:
        errors = {_find_error(door.collect(), door.place) for door in _find_doors()}
    if found := sorted(filter(None, errors)):
        return [_create_error(error) for error in found]
    checks = (_check_order, _check_proxies, _check_trust, _check_workers)
    return [message for check in checks for message in check(options)]


def check_deployment(**_: object) -> list[CheckMessage]:
    """Check, for `check --deploy` only, that the quotas of a project that may have several workers are in a store."""
    try:
        options = read_options()
    except InputError:
        return []  # reported by `check_settings`
    if _is_shared(options) or _find_workers() is not None:
        return []
    return [
        Warning(
            "RATELAB has no STORE, so each process of the server grants the whole quota.",
            "Set RATELAB['STORE'] to the URL of a Valkey or Redis server, or WEB_CONCURRENCY=1 for a single process.",
            id="ratelab.W004",
        )
    ]


def _create_error(text: str) -> CheckMessage:
    return Error(text, id="ratelab.E001")


def _find_error(options: Options, place: Place) -> str | None:
    """Return the error in the options of a limit, which connects to no store; None if WSGI or ASGI can serve it."""
    errors = []
    for kind in (BlockingGate, AwaitingGate) if options.keys() & {"LIMITER", "PLAN"} else (BlockingGate,):
        try:
            check_name(options.get("NAME"))
            create_gate({**options, "NAME": "system check"}, kind, place)
        except InputError as error:
            errors.append(f"{place.what}: {error}")
        else:
            return None
    return errors[0]


def _find_doors() -> list[Door]:
    """Return the doors of the views of the project."""
    with suppress(Exception):  # Django has a check of its own for them
        get_resolver().url_patterns  # noqa: B018  (it imports the views)
    return [*doors]


def _check_order(options: Options) -> Iterator[CheckMessage]:
    """Check the order of the middleware."""
    places = _find_middleware(MIDDLEWARE)
    if not places:
        return
    if len(places) > 1:
        yield Warning(
            "MIDDLEWARE has RateLimitMiddleware more than once, so a request is charged each time.",
            "Remove all but one.",
            id="ratelab.W005",
        )
    if options.get("KEY") in USER and any(place > places[0] for place in _find_middleware(AUTHENTICATION)):
        yield Error(
            "RATELAB['KEY'] is 'user', and RateLimitMiddleware comes before AuthenticationMiddleware.",
            "Move RateLimitMiddleware below AuthenticationMiddleware.",
            id="ratelab.E002",
        )
    if any(place > places[0] for place in _find_middleware(CORS)):
        yield Warning(
            "RateLimitMiddleware comes before CorsMiddleware, so browsers cannot read its responses.",
            "Move CorsMiddleware above RateLimitMiddleware.",
            id="ratelab.W006",
        )


def _check_proxies(options: Options) -> Iterator[CheckMessage]:
    """Check that a project behind a proxy names it, since all clients would share one quota."""
    trusts = options.get("TRUSTED_PROXIES") or options.get("TRUSTED_HOPS")
    if trusts or isinstance(options.get("KEY"), Identity) or (options.get("KEY") or "ip") not in ("ip", *USER):
        return
    names = [name for name in PROXY_SETTINGS if getattr(settings, name, None)]
    if names:
        yield Warning(
            f"{names[0]} is set, as behind a proxy, but RATELAB trusts no proxy: its clients share one quota.",
            "Set RATELAB['TRUSTED_PROXIES'] to the addresses of your proxies, or RATELAB['TRUSTED_HOPS'].",
            id="ratelab.W001",
        )


def _check_trust(options: Options) -> Iterator[CheckMessage]:
    """Check that few peers may name the client of a request."""
    networks = [ip_network(str(text), strict=False) for text in options.get("TRUSTED_PROXIES") or () if text != UNIX]
    wide = [network for network in networks if network.prefixlen < MIN_PREFIX_BITS[network.version]]
    if wide:
        yield Warning(
            f"RATELAB['TRUSTED_PROXIES'] has {wide[0]}, which covers more than the network of one operator.",
            "Name the networks of your proxies only: clients there can claim any address.",
            id="ratelab.W002",
        )


def _check_workers(options: Options) -> Iterator[CheckMessage]:
    """Check that the quotas of several workers are in a store."""
    workers = _find_workers()
    if workers is not None and workers > 1 and not _is_shared(options):
        yield Warning(
            f"{workers} workers grant {workers} times the quota, because RATELAB has no STORE.",
            "Set RATELAB['STORE'] to the URL of a Valkey or Redis server.",
            id="ratelab.W003",
        )


def _find_workers() -> int | None:
    """Return the number of workers that the environment gives to gunicorn or uvicorn; None if it gives none."""
    found = _WORKERS.search(os.environ.get("GUNICORN_CMD_ARGS", ""))
    text = found[1] if found else os.environ.get("WEB_CONCURRENCY", "")
    return int(text) if text.isdecimal() else None


def _is_shared(options: Options) -> bool:
    """Return whether the quotas of a project are in a store, or it has none of its own."""
    return bool(options.get("STORE") or options.get("LIMITER")) or not (options or _find_middleware(MIDDLEWARE))


def _find_middleware(path: str) -> list[int]:
    """Return the positions of a middleware."""
    return [place for place, one in enumerate(settings.MIDDLEWARE) if one == path or one.endswith(f".{path}")]
