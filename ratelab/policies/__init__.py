"""Policies as users write and read them: the YAML file, routes, and descriptions in words."""
