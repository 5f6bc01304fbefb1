"""Adapters: each module has the variants of one package, as candidates of `ratelab judge`."""
