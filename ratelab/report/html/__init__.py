"""Reports as HTML pages: each is one file that needs neither a network nor scripts."""

from ratelab.report.html.page import RESERVED_STEMS, Provenance, draw_pictures, render_gallery, render_page

__all__ = ["RESERVED_STEMS", "Provenance", "draw_pictures", "render_gallery", "render_page"]
