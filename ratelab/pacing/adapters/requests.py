"""Transport adapter of requests that paces them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ratelab.pacing.adapters.retries import check_key, check_retries, choose_pacer, may_resend
from ratelab.pacing.pacer import Pacer


def host_of(request: requests.PreparedRequest) -> str:
    """Return the host and port of a request, the key unless there is another."""
    return urlsplit(request.url or "").netloc.rpartition("@")[2]


class PacedAdapter(HTTPAdapter):
    """Pace the requests of a `requests.Session`: `session.mount("https://", PacedAdapter())`.

    The arguments are those of `PacedTransport`; `options` are those of `HTTPAdapter`. Its `max_retries` are for failed
    connections, `retries` for denied requests.
    """

    def __init__(
        self,
        pacer: Pacer | None = None,
        *,
        key: Callable[[requests.PreparedRequest], str] = host_of,
        retries: int = 0,
        **options: Any,
    ) -> None:
        self.pacer = choose_pacer(pacer)
        self._key, self._denied_retries = check_key(key), check_retries(retries)
        super().__init__(**options)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request at its time, and learn from the response."""
        in_memory = request.body is None or isinstance(request.body, (str, bytes))
        for retries_left in range(self._denied_retries, -1, -1):
            with self.pacer.request(self._key(request)) as permit:
                response = super().send(request, *arguments, **options)
                advice = permit.observe(response.status_code, response.headers)
            method = request.method or ""
            if not retries_left or not may_resend(advice, response.status_code, method, in_memory):
                break
            response.close()
        return response
