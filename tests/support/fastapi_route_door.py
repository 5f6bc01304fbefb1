"""The limit of routes of FastAPI as a door, on an included router."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asgi_door
from door_conformance import FILE, LATER, Client, Door
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse

from ratelab.fastapi import RateLimit
from ratelab.limiter import Decision

METHODS = ["GET", "HEAD", "POST"]


def ping() -> Any:
    return PlainTextResponse("pong")


async def stream() -> Any:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return StreamingResponse(parts())


async def file() -> Any:
    path = Path(tempfile.mkdtemp()) / "file"
    path.write_bytes(FILE)
    return FileResponse(path)


async def refused() -> Any:
    raise HTTPException(401)


async def fail() -> Any:
    raise RuntimeError("failed")


async def remaining(request: Request) -> Any:
    decision = request.state.ratelimit
    return PlainTextResponse("none" if decision is None else str(decision.remaining))


async def later(tasks: BackgroundTasks) -> str:
    tasks.add_task(LATER.append, "later")
    return ""


async def legacy(response: Response) -> str:
    response.headers.update({"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "1"})
    return ""


PAGES: list[Any] = [ping, stream, file, refused, fail, remaining, later, legacy]


def serve(limiter: Any, **arguments: Any) -> Client:
    """Create the application; all routes share the limit."""
    limit, inner, outer, app = RateLimit(limiter, **arguments), APIRouter(), APIRouter(), FastAPI()
    for page in PAGES:
        inner.add_api_route(f"/{page.__name__}", page, methods=METHODS, dependencies=[Depends(limit)])
    outer.include_router(inner)
    app.include_router(outer)
    return lambda request: asyncio.run(asgi_door.send(app, request))


def on_denied(request: Request, decision: Decision) -> Response:
    return Response("teapot", 418, {"X-Door": "closed"})


DOOR = Door(serve, on_denied, covers_all=False)
