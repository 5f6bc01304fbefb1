"""An application of Flask for real servers: the pages of the suite of doors, each with a limit of its own."""

from __future__ import annotations

import os
from typing import Any

import flask_door
import pytest
from flask import Flask
from valkey_servers import extend_default_deadlines

from ratelab.flask import limit

extend_default_deadlines(pytest.MonkeyPatch())
app = Flask(__name__)
app.add_url_rule("/healthz", "healthz", lambda: "ok")
for page in flask_door.PAGES:
    limited: Any = limit(os.environ.get("RATE", "5/h"), store=os.environ.get("STORE"))(page)
    app.add_url_rule(f"/{page.__name__}", view_func=limited)
