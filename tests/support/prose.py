"""Wording rules of the project: phrases that have a plainer replacement, and the text that they apply to."""

from __future__ import annotations

import ast
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PLACES = ("ratelab", "tests", "notebooks", "scenarios", ".github", ".ci", "README.md", "CHANGELOG.md", "pyproject.toml")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", ".html", ".lua", ".css", ".js"}
EXEMPTION = "prose: ok"  # prose: ok

# Each pattern of whole words, upper or lower case, and its replacements. Questions may begin with these words.
REPLACEMENTS = {  # prose: ok
    r"t(?:ell|ells|elling|old)(?! apart)": "format, print, report, raise, return, document",  # prose: ok
    r"(?:said|saying|says?) (?:so|whether|how|what|that|if|who|which|nothing|it)": "return, print, state",  # prose: ok
    r"(?:no|some|every|any)body|whoever": "name the actor: client, caller, user, operator, worker",  # prose: ok
    r"(?:for|of|to|by|with|on|than) who|(?:^|(?<=[.:;] ))who(?![^.]*\?)": "name the actor",  # prose: ok
    r"what (?:is|was|are|it|they|one|we|has|had|have|comes?|came|goes|there|does|an?)(?![^.]*\?)": "name the thing",
    r"(?<!there )(?:is|are|was|were|be) no (?!longer|more|less|fewer|later|such|way|good)(?=[a-z])": "is not a ...",
    r"as good as new": "fully replenished",  # prose: ok
    r"for want of|for lack of|amid|in the midst of": "without, missing, during",  # prose: ok
    r"anew": "again, restart, resend",  # prose: ok
    r"(?:mend|reckon)(?:s|ed|ing)?": "fix, compute, count, predict",  # prose: ok
    r"dear(?:er|est)": "larger cost, max_cost",  # prose: ok
    r"beside": "next to, side by side, compared with",  # prose: ok
    r"(?:held|holds?) (?:it |them |each )?against": "compare with",  # prose: ok
    r"so (?:many|much)": "n, this many, limit",  # prose: ok
    r"spare[sd]?|sparing": "save, skip, avoid",  # prose: ok
    r"a person(?:'s)?": "a user, user input",  # prose: ok
    r"(?:is|are|not|of) ours|one's own|of (?:my|our|your) own": "built-in, third-party, custom",  # prose: ok
    r"for ever|whereupon|thereof|therein|lest|in spite of all|in vain": "a plain word",  # prose: ok
    r"takes? note|to be had": "a plain word",  # prose: ok
}
RULES = [(re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE), better) for words, better in REPLACEMENTS.items()]
QUESTION_WORD = re.compile(r"\s*(?:What|Who|Whose|Whether|How|Where|When)\b")


class Finding(NamedTuple):
    """A phrase to replace; `line` counts the lines of a notebook's cells, one cell after the other."""

    line: int
    phrase: str
    better: str


def project_files() -> list[Path]:
    """Return the files whose wording is checked."""
    files = (file for place in PLACES for file in _files_below(ROOT / place))
    return sorted(file for file in files if file.suffix in SUFFIXES or file.parent.name == ".ci")


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_file():
        return iter([path])
    return (file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def find_phrases(path: Path) -> list[Finding]:
    """Return the phrases to replace in a file, and module docstrings that begin with a question word."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    findings = set()
    for number, prose, opens_module in _prose(path, text):
        if EXEMPTION in prose or (number <= len(lines) and EXEMPTION in lines[number - 1]):
            continue
        if opens_module and (word := QUESTION_WORD.match(prose)):
            findings.add(Finding(number, word[0].strip(), "begin a module docstring with the noun to search for"))
        findings |= {Finding(number, found[0], better) for rule, better in RULES for found in rule.finditer(prose)}
    return sorted(findings)


def _prose(path: Path, text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield line numbers and text, and whether it opens a module docstring."""
    if path.suffix == ".py":
        yield from _python_prose(text)
        return
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        printed = [line for cell in cells for output in cell.get("outputs", []) for line in output.get("text", [])]
        text = "".join(f"{''.join(cell['source'])}\n" for cell in cells) + "".join(printed)
    yield from ((number, line, False) for number, line in enumerate(text.splitlines(), 1))


def _python_prose(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield docstrings, strings of several words, and comments if any may have a phrase to replace."""
    tree = ast.parse(text)
    opening = tree.body[0].value if tree.body and isinstance(tree.body[0], ast.Expr) else None
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            for number, line in enumerate(node.value.splitlines(), node.lineno):
                yield number, line, node is opening and number == node.lineno
    if not any("#" in line and any(rule.search(line) for rule, _ in RULES) for line in text.splitlines()):
        return  # without a phrase in a comment, which to separate from the code takes long
    for token in tokenize.generate_tokens(iter(text.splitlines(keepends=True)).__next__):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False
