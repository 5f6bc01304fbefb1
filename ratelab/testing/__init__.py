"""Tools for tests of applications that limit requests; the fixtures of pytest are in `ratelab.pytest_plugin`."""

from ratelab.testing.clock import LimiterClock
from ratelab.testing.denials import assert_limited

__all__ = ["LimiterClock", "assert_limited"]
