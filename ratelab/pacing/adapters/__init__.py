"""Adapters of HTTP clients, in a module for each, and the rules that they share."""
