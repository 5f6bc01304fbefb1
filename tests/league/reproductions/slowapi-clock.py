import time

from fastapi import FastAPI, Request, Response, testclient
from slowapi import Limiter, errors
view = Limiter(lambda: "alice").limit("1 per 2 seconds")(lambda request: Response())
view.__annotations__["request"] = Request
app = FastAPI(exception_handlers={errors.RateLimitExceeded: lambda request, error: Response(status_code=429)})
app.add_route("/", view)
print(testclient.TestClient(app).get("/").status_code)
real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
print("limit 1 in 2 s; after 5 s:", time.sleep(5) or testclient.TestClient(app).get("/").status_code)
