"""Choice of a rate limit from traffic: what each client needs, and which quota denies few of them."""

from ratelab.lab.tune.analysis import Analysis, analyze
from ratelab.lab.tune.candidates import Candidate
from ratelab.lab.tune.demand import Demand, LocalDemand
from ratelab.lab.tune.difference import PolicyDifference, compare_policies
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.outliers import Outlier
from ratelab.lab.tune.population import ClientNeeds, Gap
from ratelab.lab.tune.tuning import Holdout, RateNeeds, Tuning, tune, tune_demand

__all__ = [
    "Analysis",
    "Candidate",
    "ClientNeeds",
    "Demand",
    "Frontier",
    "Gap",
    "Holdout",
    "LocalDemand",
    "Outlier",
    "PolicyDifference",
    "RateNeeds",
    "Tuning",
    "analyze",
    "compare_policies",
    "measure_frontier",
    "tune",
    "tune_demand",
]
