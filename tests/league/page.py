def render_table(r):
    return ""


def render_page(r):
    return ""
