"""Choice of a rate limit from traffic: what each client needs, and which quota denies few of them."""

from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.population import Gap, Population
from ratelab.lab.tune.tuning import Candidate, Holdout, RateNeeds, Tuning, tune

__all__ = [
    "Candidate",
    "Frontier",
    "Gap",
    "Holdout",
    "Population",
    "RateNeeds",
    "Tuning",
    "measure_frontier",
    "tune",
]
