"""An application of Flask, as fixtures, and requests to it."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient


@pytest.fixture
def app() -> Flask:
    return Flask("shop")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def statuses(client: FlaskClient, *paths: str, **arguments: Any) -> list[int]:
    """Send requests by GET; return the statuses."""
    return [client.get(path, **arguments).status_code for path in paths]
