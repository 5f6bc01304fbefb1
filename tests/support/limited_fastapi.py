"""An application of FastAPI for real servers: limited pages and WebSockets, in a store if the environment has one."""

import os

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi_route_door import METHODS, PAGES
from valkey_servers import extend_default_deadlines

from ratelab import ManualClock
from ratelab.clock import default_clocks
from ratelab.fastapi import RateLimit

STORE = os.environ.get("STORE")
extend_default_deadlines(pytest.MonkeyPatch())
default_clocks.steady = ManualClock()  # no delay changes the seconds in a response

app = FastAPI()
pages = RateLimit(os.environ.get("RATE", "5/h"), store=STORE, name="pages")
connections, messages = RateLimit("2/h", store=STORE, name="connections"), RateLimit("2/h", name="messages")
for page in PAGES:
    app.add_api_route(f"/{page.__name__}", page, methods=METHODS, dependencies=[Depends(pages)])


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.websocket("/ws", dependencies=[Depends(connections)])
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await messages(websocket)
        await websocket.send_text(text)
