"""Pacing of requests to services with a rate limit that the client does not know."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ratelab.pacing.advice import RateAdvice, read_advice
from ratelab.pacing.lane import Permit
from ratelab.pacing.pacer import Pacer

if TYPE_CHECKING:
    from ratelab.pacing.adapters.aiohttp import PacedMiddleware
    from ratelab.pacing.adapters.httpx import AsyncPacedTransport, PacedTransport
    from ratelab.pacing.adapters.requests import PacedAdapter

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
    "PacedTransport": "httpx",
    "AsyncPacedTransport": "httpx",
    "PacedAdapter": "requests",
    "PacedMiddleware": "aiohttp",
}
"""The package that each adapter is for, which is also the name of its module."""


def __getattr__(name: str) -> Any:
    """Import an adapter when it is first used, so that the others need no package."""
    if name not in _ADAPTERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    package = _ADAPTERS[name]
    try:
        return getattr(import_module(f"{__name__}.adapters.{package}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs {package}, which is not installed: run pip install {package}") from error
