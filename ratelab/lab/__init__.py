"""Traffic, its replay through algorithms, and the figures of the outcomes."""

CHARTS = ("comparison", "cumulative", "timeline", "window", "outcome", "level", "fairness", "denials")
"""Charts of a comparison: each is a module of `ratelab.report.charts`. The first combines the next four."""

POLICY_CHARTS = ("policies", "bound", "left", "fairness", "denials")
"""Charts of several policies together. The first combines the next with the counts of each policy."""

LOOP_CHARTS = ("loop", "goodput", "attempts", "time-to-success")
"""Charts of closed loops. The first combines the others."""

SEMANTICS = {
    "atomic": "a request is charged to all policies, or to none",
    "sequential": "policies are asked in order, and keep their charge if a later one denies the request",
    "independent": "each policy charges the requests that it admits, also if another denies the request",
}
"""Ways to enforce several policies. Limiters are atomic; the others show what checks one by one do."""
