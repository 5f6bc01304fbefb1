"""The templates, and what every page has: its style, its script and who made it.

Whatever a page tells is text and never markup: Jinja escapes it, and the page's own policy lets nothing run but the one
script that is named by its digest, and nothing be fetched.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ratelab.report.charts.style import THEMES
from ratelab.report.serialize import MEANINGS

TEMPLATES = Path(__file__).parent / "templates"


class Made(NamedTuple):
    """How a page came to be."""

    command: str
    """What was typed."""
    version: str
    """Of ratelab."""


def rendered(template: str, made: Made, **values: Any) -> str:
    """Return the page that `template` makes of `values`."""
    return _environment().get_template(template).render(made=made, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(environment.get_template("style.css").render(THEMES)),  # noqa: S704  (our own text)
        "script": Markup(script),  # noqa: S704
        "script_hash": f"sha256-{digest}",
        "meanings": MEANINGS,
    }
    return environment


def _breakable(name: str) -> Markup:
    """Let a figure's name be broken after its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))
