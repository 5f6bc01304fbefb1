"""Several policies in one decision: the requests that each is asked about, their replay and their figures."""
