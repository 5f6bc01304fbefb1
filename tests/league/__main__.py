"""League of rate limiting packages: `python tests/league [--only NAME] [--html FILE]`."""

from command import league

league()
