"""Flask-Limiter on a view of a Flask application."""

import limits.storage.memory
from adapting import log_bound, window_bound, without_threads, wsgi_hit
from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

without_threads(limits.storage.memory)


def _hit(limits, **options):
    app = Flask(__name__)
    limiter = Limiter(get_remote_address, app=app, storage_uri="memory://", headers_enabled=True, **options)
    app.add_url_rule("/", view_func=limiter.limit(";".join(limits))(lambda: "ok"))
    return wsgi_hit(app)


def fixed_window(limit, period, burst):
    return _hit([f"{limit} per {int(period)} second"])


def moving_window(limit, period, burst):
    return _hit([f"{limit} per {int(period)} second"], strategy="moving-window")


def several(quotas):
    return _hit([f"{limit} per {int(period)} second" for limit, period, _ in quotas])


fixed_window.bound, fixed_window.several = window_bound, several
moving_window.bound = log_bound
