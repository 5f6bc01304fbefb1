import time

from fastapi import FastAPI, Request, Response, testclient
from slowapi import Limiter, errors
view = Limiter(lambda: "alice").limit("5 per 60 seconds; 1 per 2 seconds")(lambda request: Response())
view.__annotations__["request"] = Request
app = FastAPI(exception_handlers={errors.RateLimitExceeded: lambda request, error: Response(status_code=429)})
app.add_route("/", view)
print([testclient.TestClient(app).get("/").status_code for _ in range(10)])
print("after 2 s:", time.sleep(2.1) or testclient.TestClient(app).get("/").status_code)
