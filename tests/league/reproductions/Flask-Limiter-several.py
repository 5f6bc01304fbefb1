import time

import flask
import flask_limiter

app = flask.Flask(__name__)
flask_limiter.Limiter(lambda: "alice", app=app, default_limits=["5 per 60 seconds", "1 per 2 seconds"])
app.add_url_rule("/", view_func=lambda: "ok")
statuses = [app.test_client().get("/").status_code for _ in range(10)]
time.sleep(2.1)  # the short limit is free again, and one request of the long one was served
print(statuses, "after 2 s:", app.test_client().get("/").status)
