"""What a drill asks for, as a file to begin with."""

from __future__ import annotations

import inspect
from textwrap import dedent, indent, wrap

from ratelab.errors import InputError
from ratelab.learn.source import field_lines
from ratelab.limiter import Algorithm

FILE = '''\
"""{name}: {meaning}

{idea}

Grade it: ratelab drill {name} answer.py. What it prints is told with the timeline on which it fails.
"""


def step(self, state, now, cost):
    """Decide a hit of `cost` at `now`, in nanoseconds; update `state` in place, and return the five fields."""
    # what there is to work with:
{given}
    allowed = True
    remaining = 0  # further cost admissible at this instant
    retry_after_ns = 0  # the shortest wait that helps, rounded up; 0 if allowed, NEVER if none does
    reset_after_ns = 0  # until the key is as good as new, rounded up
    delay_ns = 0  # how long an admitted request must queue
    return allowed, remaining, retry_after_ns, reset_after_ns, delay_ns
'''


def task(algorithm: type[Algorithm]) -> str:
    """Return a file in which `step` is to be written; raise `InputError` if the algorithm's source cannot be had."""
    try:
        fields, start = field_lines(algorithm), dedent(inspect.getsource(algorithm.start))
    except (OSError, TypeError):
        raise InputError(f"{algorithm.name} has no source to make a drill from") from None
    meaning, *rest = [" ".join(part.split()) for part in (inspect.getdoc(algorithm) or "").split("\n\n")]
    given = [*(f"self.{line}" for line in fields), *_state(algorithm), "a new key's state:", *_body(start)]
    return FILE.format(
        name=algorithm.name,
        meaning=meaning,
        idea="\n".join(wrap(rest[0] if rest else "", 100)),
        given=indent("\n".join(given), "    # ", lambda _: True),
    )


def _state(algorithm: type[Algorithm]) -> list[str]:
    """Name the places of a state; a ring is all that are left."""
    names = enumerate(getattr(algorithm, "remembers", ()))
    return [f"state[{place}{':' * name.startswith('a ring')}]: {name}" for place, name in names]


def _body(start: str) -> list[str]:
    lines = dedent(start.split("\n", 1)[1]).splitlines()
    return [f"    {line}" for line in lines if not line.startswith('"""')]
