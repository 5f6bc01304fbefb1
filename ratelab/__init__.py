"""Rate limiting that people can see, prove and ship."""

from ratelab.algorithms import ALGORITHMS, Policy, create, traits_of
from ratelab.calls import limited
from ratelab.clock import Clock, ManualClock
from ratelab.errors import InputError, RateLimitExceeded
from ratelab.limiter import NEVER, Algorithm, Decision, Level, Limiter, State, Traits
from ratelab.quota import Quota
from ratelab.stores.key_table import Stats
from ratelab.stores.memory import MemoryLimiter

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "NEVER",
    "Algorithm",
    "Clock",
    "Decision",
    "InputError",
    "Level",
    "Limiter",
    "ManualClock",
    "MemoryLimiter",
    "Policy",
    "Quota",
    "RateLimitExceeded",
    "State",
    "Stats",
    "Traits",
    "create",
    "limited",
    "traits_of",
]
