"""The charts that there are of a comparison, by name: a scenario may say which of them shows its lesson."""

CHARTS = ("comparison", "cumulative", "timeline", "window", "outcome", "level", "fairness")
"""The first has the essence of the others."""
