import time

from fastapi import FastAPI, Request, testclient
from fastapi_limitex import Limiter

limiter, app = Limiter(), FastAPI()
limiter.attach(app)
view = lambda request: "ok"
view.__annotations__["request"] = Request
app.get("/")(limiter.limit("5/minute;1/2 seconds")(view))
