"""The limit of a whole application of FastAPI as a door."""

from __future__ import annotations

import asyncio
from typing import Any

import asgi_door
from door_conformance import Client, Door
from fastapi import Depends, FastAPI
from fastapi_route_door import METHODS, PAGES, on_denied

from ratelab.fastapi import RateLimit


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application, whose dependencies are those of its routes alone."""
    app = FastAPI(dependencies=[Depends(RateLimit(limiter, **arguments))])
    for page in PAGES:
        app.add_api_route(f"/{page.__name__}", page, methods=METHODS)
    return lambda request: asyncio.run(asgi_door.send(app, request))


DOOR = Door(serve, on_denied, covers_all=False)
