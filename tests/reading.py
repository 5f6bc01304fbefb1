"""What the tests of traces share: how one is read, and when its good line was written."""

from __future__ import annotations

from collections.abc import Callable

from ratelab.lab.traces import Trace

SECOND = 10**9
START = 1_431_857_103 * SECOND
"""17 May 2015, 10:05:03 UTC."""

Read = Callable[..., Trace]
