import time

import flask
import flask_limiter

app = flask.Flask(__name__)
flask_limiter.Limiter(lambda: "alice", app=app, default_limits=["1 per 5 seconds"], headers_enabled=True)
app.add_url_rule("/", view_func=lambda: "ok")
responses = [app.test_client().get("/") for pause in (1.9 - time.time() % 1, 0.3) if not time.sleep(pause)]
time.sleep(int(responses[1].headers["Retry-After"]))
print(responses[1].status, responses[1].headers["Retry-After"], "s; then:", app.test_client().get("/").status)
