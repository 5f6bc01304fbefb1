"""Traffic, its replay through algorithms, and the figures of the outcomes."""

CHARTS = ("comparison", "cumulative", "timeline", "window", "outcome", "level", "fairness", "denials")
"""Charts of a comparison: each is a module of `ratelab.report.charts`. The first combines the next four."""
