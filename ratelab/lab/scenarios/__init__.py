"""Traffic described in YAML files."""

from ratelab.lab.scenarios.descriptions import describe_client
from ratelab.lab.scenarios.scenario import Scenario, load_scenario, load_variants

__all__ = ["Scenario", "describe_client", "load_scenario", "load_variants"]
