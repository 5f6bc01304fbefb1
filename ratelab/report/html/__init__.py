"""Reports as pages for a browser, each of them one file that needs no network and no script."""

from ratelab.report.html.gallery import RESERVED, render_gallery
from ratelab.report.html.page import Made, pictures, render_page

__all__ = ["RESERVED", "Made", "pictures", "render_gallery", "render_page"]
