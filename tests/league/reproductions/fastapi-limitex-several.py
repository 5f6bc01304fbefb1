import time

from fastapi import FastAPI, Request, testclient
from fastapi_limitex import Limiter

(limiter := Limiter()).attach(app := FastAPI())
def view(request: Request): return "ok"
app.get("/")(limiter.limit("5/minute;1/2 seconds")(view))
client = testclient.TestClient(app)
print([client.get("/").status_code for _ in range(10)], "after 2 s:", time.sleep(2.1) or client.get("/").status_code)
