"""Comparison of a live endpoint with the simulation."""
