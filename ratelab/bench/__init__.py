"""What ratelab costs: each figure beside the floor that it cannot go below, measured in the same run."""
