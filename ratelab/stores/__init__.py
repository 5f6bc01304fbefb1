"""Limiters that keep the state of their keys in memory or in a shared store."""
