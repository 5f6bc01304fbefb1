import time

from fastapi import Depends, FastAPI, testclient
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Limiter, Rate

limits = [Depends(RateLimiter(limiter=Limiter(Rate(*rate)))) for rate in ((5, 60_000), (1, 2_000))]
client = testclient.TestClient(app := FastAPI())
app.get("/", dependencies=limits)(lambda: "ok")
print([client.get("/").status_code for _ in range(10)], "after 2 s:", time.sleep(2.1) or client.get("/").status_code)
