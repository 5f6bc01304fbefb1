"""The slim install: `pip install --no-deps` in a fresh virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SLIM_SERVICE = Path(__file__).parent / "support" / "slim_service.py"
FULL_INSTALL = "ratelab: the command line needs click: run pip install . in a ratelab checkout\n"
LAB = {"click", "jinja2", "matplotlib", "numpy", "pydantic", "rich", "yaml"}
"""The libraries of the lab, which a slim install lacks."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**ENVIRONMENT, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install ratelab without dependencies; return the folder of its environment's programs."""
    work = tmp_path_factory.mktemp("slim")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []  # without it, pip fetches hatchling
    built = run(*pip, "wheel", "--no-deps", *isolation, "--wheel-dir", work, ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = work.glob("ratelab-*.whl")
    venv.create(work / "environment", with_pip=False)
    folder = work / "environment" / ("Scripts" if sys.platform == "win32" else "bin")
    installed = run(*pip, "--python", folder / "python", "install", "--no-deps", "--no-index", wheel)
    assert installed.returncode == 0, installed.stderr
    return folder


def test_limiter_and_middleware_run_on_the_standard_library_alone(scripts: Path) -> None:
    done = run(scripts / "python", "-I", SLIM_SERVICE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("door", ["flask", "django", "fastapi"])
def test_a_door_needs_only_its_framework(door: str) -> None:
    framework = run(sys.executable, "-c", f"import sys, {door}; print(*{{*sys.modules}} & {LAB})").stdout.split()
    absent = sorted(LAB - {*framework, "jinja2", "click"})  # which Flask imports late
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); import ratelab.{door}"
    done = run(sys.executable, "-c", program, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [["ratelab"], ["ratelab", "--help"], ["python", "-m", "ratelab", "simulate"]])
def test_the_command_line_names_the_full_install_in_one_line(command: list[str], scripts: Path) -> None:
    program, *arguments = command
    done = run(scripts / program, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", FULL_INSTALL)


def test_the_pages_of_the_manual_are_installed(scripts: Path) -> None:
    names = "(page.name for page in (files('ratelab') / 'docs').iterdir())"
    done = run(scripts / "python", "-I", "-c", f"from importlib.resources import files; print(*{names})")
    assert sorted(done.stdout.split()) == sorted(page.name for page in (ROOT / "ratelab" / "docs").glob("*.md"))


def test_pytest_loads_the_plugin_of_an_installed_wheel(scripts: Path, tmp_path: Path) -> None:
    lines = [
        "import ratelab",
        "def test_clock(ratelab_clock):",
        f"    assert {str(scripts.parent)!r} in ratelab.__file__",
    ]
    (tmp_path / "test_clock.py").write_text("\n".join(lines))
    pytest_home = sysconfig.get_path("purelib")
    done = run(scripts / "python", "-P", "-m", "pytest", "-p", "no:cacheprovider", tmp_path, PYTHONPATH=pytest_home)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr
