"""Headless browser without network access: DOM and screenshot of a page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)

DARK = "--blink-settings=preferredColorScheme=0"


def dump_dom(page: Path, *flags: str) -> str:
    """Return the DOM of a page after its scripts have run."""
    return _run("--dump-dom", *flags, page.as_uri())


def take_screenshot(page: Path, width: int, *flags: str) -> bytes:
    """Return a screenshot of the top of a page, `width` pixels wide, as PNG."""
    with TemporaryDirectory() as folder:
        target = Path(folder) / "page.png"
        _run(f"--screenshot={target}", f"--window-size={width},600", *flags, page.as_uri())
        return target.read_bytes()


def _run(*arguments: str) -> str:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser is installed: install one of {', '.join(BROWSERS)}")
    with TemporaryDirectory() as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
