"""Entry point of the `ratelab` command and of `python -m ratelab`."""

import sys

from ratelab.errors import install_hint

COMMAND_LINE_LIBRARIES = ("click", "jinja2", "matplotlib", "numpy", "pydantic", "rich", "yaml")
"""Modules that the command line needs and the limiter does not; `pip install --no-deps` leaves them out."""


def main() -> None:
    """Run the command line; exit with status 2 and one line if a library that it needs is not installed."""
    try:
        from ratelab.cli import main as run_command_line

        run_command_line()
    except ModuleNotFoundError as error:
        if error.name not in COMMAND_LINE_LIBRARIES:
            raise
        sys.stderr.write(f"ratelab: the command line needs {error.name}: {install_hint()}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
