import time

from fastapi import Depends, FastAPI, testclient
from fastapi_throttle import RateLimiter

client = testclient.TestClient(app := FastAPI())
app.get("/", dependencies=[Depends(RateLimiter(times=1, seconds=5))])(lambda: "ok")
denied = [client.get("/") for pause in (0, 0.3) if not time.sleep(pause)][-1].headers["Retry-After"]
print(f"after the announced {denied} s:", time.sleep(int(denied)) or client.get("/").status_code)
