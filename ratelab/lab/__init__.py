"""The lab: traffic, its replay through the algorithms, and what to measure of it."""
