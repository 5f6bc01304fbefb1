"""Reports as pages for a browser, each of them one file that needs no network and no script."""

from ratelab.report.html.drawn import pictures
from ratelab.report.html.gallery import RESERVED, gallery
from ratelab.report.html.page import page
from ratelab.report.html.rendering import Made

__all__ = ["RESERVED", "Made", "gallery", "page", "pictures"]
