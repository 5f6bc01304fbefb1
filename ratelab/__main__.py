"""`python -m ratelab`."""

from ratelab.cli import main

main()
