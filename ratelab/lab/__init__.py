"""The lab: traffic, its replay through the algorithms, and what to measure of it."""

CHARTS = ("comparison", "cumulative", "timeline", "window", "outcome", "level", "fairness")
"""The first has the essence of the others."""
