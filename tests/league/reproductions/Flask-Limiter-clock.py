import time

import flask
import flask_limiter

app = flask.Flask(__name__)
flask_limiter.Limiter(lambda: "alice", app=app, default_limits=["1 per 2 seconds"])
app.add_url_rule("/", view_func=lambda: "ok")
app.test_client().get("/")
real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
print("limit 1 in 2 s; after 5 s:", time.sleep(5) or app.test_client().get("/").status)
