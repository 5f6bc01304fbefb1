"""The page about Django: its project, its settings and throttles, and its lists of names."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import django_project
import pytest
from django.test import override_settings
from manual import PAGES

from ratelab.django import apps
from ratelab.django.settings import NAMES, Place, create_gate
from ratelab.http.doors import BlockingGate

PAGE = PAGES["ratelab/docs/django.md"]
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SUPPORT = Path(django_project.__file__).parent

VISIT = """
import json
import shop, wsgi
from django.core.wsgi import get_wsgi_application
from ratelab import ManualClock
from ratelab.clock import default_clocks

default_clocks.steady = clock = ManualClock()
app = get_wsgi_application()
replies = [wsgi.call(app, path="/") for _ in range(3)]
clock.advance(5 * 10**9)
print(json.dumps([(reply.status, reply.fields, reply.body.decode()) for reply in [*replies, wsgi.call(app, path="/")]]))
"""


def test_the_project_answers_as_shown(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CODE[0])
    path = os.pathsep.join([str(SUPPORT), str(Path(apps.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", VISIT], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    (text,) = re.findall(r"^```text\n(HTTP/1.1 .*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    shown = [response.lower().splitlines() for response in re.split(r"(?m)^HTTP/1.1 ", text)[1:]]
    for (status, fields, body), (first, *lines) in zip(json.loads(done.stdout), shown, strict=True):
        assert first.startswith(str(status))
        sent = [f"{name}: {value}" for name, value in fields if "rate" in name or "retry" in name]
        sent += [body.strip()] if status == 200 else []
        assert [line for line in sent if len(lines) > 1 or "left" in line] == lines


@pytest.mark.parametrize("source", [source for source in CODE if source.count("RATELAB = {")])
def test_the_settings_shown_are_valid(source: str) -> None:
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102  (our own text)
    create_gate({**names["RATELAB"], "STORE": None}, BlockingGate, Place("page"))


def test_the_throttles_shown_are_valid() -> None:
    names: dict[str, Any] = {}
    for source in CODE:
        if "Throttle" in source:
            exec(source, names)  # noqa: S102  (our own text)
    with override_settings(RATELAB={}):
        for name in ("SearchThrottle", "KeyThrottle"):
            assert names[name]().wait() is None
            create_gate(names[name]().collect(), BlockingGate, Place("page"))
    found = {name.rpartition(".")[2] for name in names["REST_FRAMEWORK"]["DEFAULT_THROTTLE_CLASSES"]}
    assert found == {"AnonRateThrottle", "UserRateThrottle", "ScopedRateThrottle"}


def test_the_settings_listed_are_those_that_exist() -> None:
    section = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}
    assert listed | {"BURST", "ALGORITHM"} == {*NAMES}


def test_the_checks_listed_are_those_that_exist() -> None:
    listed = re.findall(r"^\| `(ratelab\.[EW]\d+)`", PAGE, re.MULTILINE)
    assert sorted(listed) == sorted({*re.findall(r"ratelab\.[EW]\d+", inspect.getsource(apps))})
