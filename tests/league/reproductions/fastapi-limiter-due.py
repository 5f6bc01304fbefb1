from fastapi import Depends, FastAPI, testclient
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Duration, Limiter, Rate

app = FastAPI()
app.get("/", dependencies=[Depends(RateLimiter(limiter=Limiter(Rate(2, Duration.SECOND * 5))))])(lambda: "ok")
for client in ("10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2"):
    print(client, testclient.TestClient(app, client=(client, 1)).get("/").status_code)
