"""Wording of the whole project: no phrase that has a plainer replacement."""

from __future__ import annotations

from pathlib import Path

import pytest
from prose import ROOT, Finding, find_phrases, project_files


@pytest.mark.slow
def test_every_file_is_written_in_plain_english() -> None:
    findings = {path.relative_to(ROOT).as_posix(): find_phrases(path) for path in project_files()}
    assert {path: found for path, found in findings.items() if found} == {}


OLD = {
    "docstring.py": '"""What a limiter is."""\n',  # prose: ok
    "comment.py": "x = 1  # told to nobody\n",  # prose: ok
    "message.py": 'raise ValueError(f"so many requests are kept in {x}")\n',  # prose: ok
    "page.md": "as good as new\n",  # prose: ok
    "book.ipynb": '{"cells": [{"source": ["x\\n", "y"], "outputs": [{"text": ["mend it\\n"]}]}]}',  # prose: ok
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_phrase_is_found(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(OLD[name], encoding="utf-8")
    assert find_phrases(path)


def test_a_quotation_may_be_exempt(tmp_path: Path) -> None:
    path = tmp_path / "quotation.py"
    path.write_text('x = "as good as new"  # prose: ok\n', encoding="utf-8")
    assert find_phrases(path) == []


def test_a_finding_names_line_phrase_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("\n".join(["one", "", "begin anew"]), encoding="utf-8")  # prose: ok
    assert find_phrases(path) == [Finding(3, "anew", "again, restart, resend")]  # prose: ok
