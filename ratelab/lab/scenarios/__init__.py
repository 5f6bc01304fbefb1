"""Traffic described in YAML files."""

from ratelab.lab.scenarios.scenario import Scenario, describe_client, load_scenario

__all__ = ["Scenario", "describe_client", "load_scenario"]
