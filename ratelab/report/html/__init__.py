"""Reports as pages for a browser, each of them one file that needs no network and no script."""

from ratelab.report.html.drawn import pictures
from ratelab.report.html.folder import RESERVED, gallery
from ratelab.report.html.rendering import Made
from ratelab.report.html.report import page

__all__ = ["RESERVED", "Made", "gallery", "page", "pictures"]
