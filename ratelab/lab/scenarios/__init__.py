"""Written traffic: scenario files in YAML."""

from ratelab.lab.scenarios.scenario import Scenario, load_scenario

__all__ = ["Scenario", "load_scenario"]
