"""Default reactions of common HTTP clients to failures, as keys of scenario files."""

from __future__ import annotations

from typing import NamedTuple

from ratelab.documents import Value

Keys = dict[str, Value]

IDEMPOTENT = "only idempotent methods are retried"


class Preset(NamedTuple):
    """The reaction of a library or a tool to failures."""

    keys: Keys
    source: str
    """The version and the address of its documentation or its code."""
    left_out: str = ""
    """How it differs from the keys."""


def _retry(policy: str, **keys: Value) -> Keys:
    return {"retry": {"policy": policy, **keys}}


_BOTOCORE = "https://github.com/boto/botocore/blob/develop/botocore"
_STANDARD: Keys = {
    "base": "1s",
    "cap": "20s",
    "attempts": "3",
    "budget": {"ratio": "100%", "on": "success", "cap": "500", "cost": "5"},
}

PRESETS = {
    "aiohttp-retry": Preset(
        _retry("exponential", base="200ms", cap="30s", attempts="3", retry_on=["error", "shed"]),
        "aiohttp-retry 2.9.1, ExponentialRetry: https://github.com/inyutin/aiohttp_retry",
    ),
    "botocore-adaptive": Preset(
        {**_retry("full-jitter", **_STANDARD), "aimd": {"rate": "100/s", "increase": "1/s", "decrease": "30%"}},
        f"botocore 1.44.8, mode adaptive: {_BOTOCORE}/retries/adaptive.py",
        "as standard; the rate follows a cubic curve and has no limit before the first denial",
    ),
    "botocore-legacy": Preset(
        _retry("full-jitter", base="1s", cap="20s", attempts="5"),
        f"botocore 1.44.8, mode legacy: {_BOTOCORE}/data/_retry.json",
    ),
    "botocore-standard": Preset(
        _retry("full-jitter", **_STANDARD),
        f"botocore 1.44.8, mode standard: {_BOTOCORE}/retries/standard.py",
        "after other failures than a denial the base is 50 ms and the cost 14; a success returns the cost of its retry",
    ),
    "browser": Preset(
        _retry("none"),
        "Chromium, ShouldResendRequest: "
        "https://github.com/chromium/chromium/blob/main/net/http/http_network_transaction.cc",
        "a request is sent again if a reused connection breaks before the response",
    ),
    "curl": Preset(
        _retry("exponential", base="1s", cap="10min", attempts="4", honors="retry-after"),
        "curl 7.66 and later, --retry 3: https://everything.curl.dev/usingcurl/downloads/retry",
        "without --retry, nothing is retried",
    ),
    "envoy": Preset(
        _retry(
            "full-jitter",
            base="25ms",
            cap="250ms",
            attempts="2",
            budget={"ratio": "20%", "cap": "3"},
            retry_on=["error", "timeout", "shed"],
        ),
        "Envoy, API v3, retry_on 5xx and retry_budget: "
        "https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter",
        "the budget limits retries in flight to 20 % of all requests, or 3; without retry_on, it retries nothing",
    ),
    "google-cloud": Preset(
        _retry(
            "full-jitter",
            base="1s",
            cap="60s",
            attempts="unlimited",
            deadline="2min",
            retry_on=["denied", "error", "shed"],
        ),
        "google-api-core 2.44.0, Retry: https://googleapis.dev/python/google-api-core/latest/retry.html",
    ),
    "grpc": Preset(
        _retry(
            "full-jitter",
            base="100ms",
            cap="1s",
            attempts="4",
            budget={"ratio": "10%", "on": "success", "cap": "5"},
            retry_on=["error", "shed"],
        ),
        "gRPC A6, the example of a policy: https://github.com/grpc/proposal/blob/master/A6-client-retries.md",
        "without a service config, nothing that reached the server is retried; every failure takes a token",
    ),
    "httpx-retries": Preset(
        _retry("immediate", attempts="11", honors="retry-after", retry_on=["denied", "timeout", "shed"]),
        "httpx-retries 0.6.0, Retry: https://will-ockmore.github.io/httpx-retries/",
        f"{IDEMPOTENT}; Retry-After is cut to 2 min",
    ),
    "requests": Preset(
        _retry("none"),
        "requests 2.34.2, HTTPAdapter: https://requests.readthedocs.io/en/latest/api/#requests.adapters.HTTPAdapter",
    ),
    "tenacity": Preset(
        _retry("immediate", attempts="unlimited"),
        "tenacity 9.2.1, @retry: https://tenacity.readthedocs.io/en/latest/",
        "every exception is retried; httpx and requests raise none for a status without raise_for_status",
    ),
    "urllib3": Preset(
        _retry("immediate", attempts="4", honors="retry-after", retry_on=["denied", "timeout"]),
        "urllib3 2.8.0, Retry.DEFAULT: https://urllib3.readthedocs.io/en/stable/reference/urllib3.util.html",
        IDEMPOTENT,
    ),
}
"""Every preset by its name."""
