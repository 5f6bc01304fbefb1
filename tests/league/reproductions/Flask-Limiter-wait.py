import time

import flask
import flask_limiter

app = flask.Flask(__name__)
flask_limiter.Limiter(lambda: "alice", app=app, default_limits=["1 per 5 seconds"], headers_enabled=True)
app.add_url_rule("/", view_func=lambda: "ok")
denied = [app.test_client().get("/") for pause in (1.5 - time.time() % 1, 0.6) if not time.sleep(pause)][-1]
time.sleep(int(denied.headers["Retry-After"]))
print("after the announced", denied.headers["Retry-After"], "s:", app.test_client().get("/").status)
