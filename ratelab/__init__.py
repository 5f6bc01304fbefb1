"""Rate limiting that people can see, prove and ship."""

from ratelab.algorithms import ALGORITHMS, create
from ratelab.clock import ManualClock
from ratelab.errors import InputError
from ratelab.limiter import NEVER, Algorithm, Clock, Decision, Limiter, State
from ratelab.quota import Quota
from ratelab.stores.memory import MemoryLimiter, Stats

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "NEVER",
    "Algorithm",
    "Clock",
    "Decision",
    "InputError",
    "Limiter",
    "ManualClock",
    "MemoryLimiter",
    "Quota",
    "State",
    "Stats",
    "create",
]
