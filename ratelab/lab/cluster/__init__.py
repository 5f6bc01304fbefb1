"""Reading and deciding in tasks of an engine, with the same results as in one process."""
