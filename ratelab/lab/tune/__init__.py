"""Choice of a rate limit from traffic: what each client needs, and which quota denies few of them."""

from ratelab.lab.tune.analysis import Analysis, analyze, analyze_trace
from ratelab.lab.tune.candidates import Candidate
from ratelab.lab.tune.difference import PolicyDifference, compare_policies
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.outliers import Outlier
from ratelab.lab.tune.population import ClientNeeds, Gap
from ratelab.lab.tune.tuning import Holdout, RateNeeds, Tuning, tune

__all__ = [
    "Analysis",
    "Candidate",
    "ClientNeeds",
    "Frontier",
    "Gap",
    "Holdout",
    "Outlier",
    "PolicyDifference",
    "RateNeeds",
    "Tuning",
    "analyze",
    "analyze_trace",
    "compare_policies",
    "measure_frontier",
    "tune",
]
