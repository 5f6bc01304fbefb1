"""Pacing of requests to services with a rate limit that the client does not know."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratelab.pacing.advice import RateAdvice, read_advice
from ratelab.pacing.lane import Permit
from ratelab.pacing.pacer import Pacer

if TYPE_CHECKING:
    from ratelab.pacing.aiohttp_middleware import PacedMiddleware
    from ratelab.pacing.httpx_transports import AsyncPacedTransport, PacedTransport
    from ratelab.pacing.requests_adapter import PacedAdapter

__all__ = [
    "AsyncPacedTransport",
    "PacedAdapter",
    "PacedMiddleware",
    "PacedTransport",
    "Pacer",
    "Permit",
    "RateAdvice",
    "read_advice",
]

_ADAPTERS = {
    "PacedTransport": ("httpx_transports", "httpx"),
    "AsyncPacedTransport": ("httpx_transports", "httpx"),
    "PacedAdapter": ("requests_adapter", "requests"),
    "PacedMiddleware": ("aiohttp_middleware", "aiohttp"),
}
"""The module of each adapter, and the package that it is for."""


def __getattr__(name: str) -> Any:
    """Import an adapter when it is first used, so that the others need no package."""
    if name not in _ADAPTERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, package = _ADAPTERS[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs {package}, which is not installed: run pip install {package}") from error
