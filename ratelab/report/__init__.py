"""Reports of comparisons: tables, sentences, charts, pages and files."""
