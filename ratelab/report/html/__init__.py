"""Reports as pages for a browser, each of them one file that needs no network and no script."""

from ratelab.report.html.gallery import RESERVED, gallery
from ratelab.report.html.page import Made, page, pictures

__all__ = ["RESERVED", "Made", "gallery", "page", "pictures"]
