"""The algorithms by name, and how to build one.

Every kernel counts in credits: a nanosecond earns `limit` of them and a unit of cost spends `period`, so that nothing
is divided before the last line. Waits are rounded up, written `-(-x // y)` because Python's `//` rounds down.
"""

from __future__ import annotations

from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.plugins import from_file, from_package, in_packages
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Algorithm
from ratelab.quota import Quota

ALGORITHMS: dict[str, type[Algorithm]] = {
    "token-bucket": TokenBucket,
    "leaky-bucket": LeakyBucket,
    "fixed-window": FixedWindow,
    "sliding-log": SlidingLog,
    "sliding-counter": SlidingCounter,
    "gcra": Gcra,
}
"""The built-in algorithms; a new one is one file and one line here."""

COMPARED = tuple(name for name in ALGORITHMS if name != "gcra")
"""What a comparison shows by default: all but `gcra`, which would draw `token-bucket` twice."""


def available() -> dict[str, type[Algorithm]]:
    """Return the built-in algorithms and those of installed packages (entry points `ratelab.algorithms`), by name.

    Raises `InputError` if a package's entry cannot be used.
    """
    return {**{name: from_package(entry) for name, entry in in_packages().items()}, **ALGORITHMS}


def find(name: str) -> type[Algorithm]:
    """Return the algorithm called `name`, or the class that `path/to/file.py:Class` names.

    Raises `InputError` if there is none, with the nearest name.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if ".py:" in name:
        return from_file(name)
    packages = in_packages()
    if name in packages:
        return from_package(packages[name])
    names = [*ALGORITHMS, *packages]
    from difflib import get_close_matches

    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}, or FILE.py:CLASS"
    if name.endswith(".py"):
        hint = f"name its class, too, as in {name}:CLASS"
    raise InputError(f"unknown algorithm {short_repr(name)}: {hint}")


def create(name: str, rate: str | Quota, burst: int | None = None) -> Algorithm:
    """Build the algorithm called `name` for `rate` (text or a `Quota`) and `burst` (default: as the rate says).

    Raises `InputError` for an unknown name and for a quota that cannot be granted.
    """
    quota = Quota.of(rate, burst)
    return find(name).from_quota(quota)
