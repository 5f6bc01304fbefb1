"""Choice of a rate limit from traffic."""
