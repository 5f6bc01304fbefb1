"""Policies as files and as parts of an HTTP service: the YAML file, routes and plans."""
