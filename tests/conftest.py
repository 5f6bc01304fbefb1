"""The suite's options: Hypothesis without chance or clock, and `--algo` for classes from outside."""

from __future__ import annotations

import pytest
from hypothesis import settings

from ratelab.algorithms import available, find

pytest.register_assert_rewrite("contracts")

settings.register_profile("exact", derandomize=True, deadline=None, database=None, max_examples=150)
settings.load_profile("exact")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--algo",
        action="append",
        default=[],
        metavar="FILE.py:CLASS",
        help="hold this class, too, to what every algorithm promises (may be repeated)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes `kind` every algorithm there is."""
    if "kind" in metafunc.fixturenames:
        kinds = {**available(), **{name: find(name) for name in metafunc.config.getoption("--algo")}}
        metafunc.parametrize("kind", kinds.values(), ids=kinds.keys())
