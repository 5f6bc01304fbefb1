"""Tables: their content for any comparison, and their layout in a terminal of any width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_runs import create_column
from rich.cells import cell_len
from rich.console import Console

from ratelab import ALGORITHMS, Quota, create
from ratelab.algorithms import COMPARED
from ratelab.lab.accuracy import Accuracy
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.lab.traffic import Traffic
from ratelab.report.catalogue import describe_algorithm, render_catalogue
from ratelab.report.summary import (
    build_clients_table,
    build_comparison_table,
    describe_fullest,
    describe_run,
    summarize,
)
from ratelab.report.tables import Cell, Table, build_column, render_table

FIGURES = {name: figure for kind in (Result, Accuracy, EqualResult) for name, figure in list_figures(kind).items()}


def compare_clients(sizes: dict[str, int], burst: int = 5, timeout: int = 10 * 10**9, spacing: int = 0) -> Comparison:
    """Compare algorithms for clients that send this number of requests, `spacing` nanoseconds apart."""
    clients = create_column([number for number, size in enumerate(sizes.values()) for _ in range(size)])
    times = create_column([place * spacing for size in sizes.values() for place in range(size)])
    order, keys = np.argsort(times, kind="stable"), create_column(range(len(sizes)))
    end = 5 * 10**9 + int(times.max(initial=0))
    traffic = Traffic(times[order], clients[order], 0 * clients + 1, (*sizes,), keys, end)
    policies = [create(name, Quota.parse("1/s", burst)) for name in COMPARED]
    return compare(policies, traffic, client_timeout=timeout)


def render(table: Table, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width)
    with console.capture() as capture:
        console.print(render_table(table, width))
    return capture.get().splitlines()


# --- content


def test_headers_are_words() -> None:
    headers = [figure.header.replace("{window}", "30 s") for figure in FIGURES.values() if figure.header]
    assert [header for header in headers if not re.fullmatch(r"[a-z]+([ -]([a-z]+|30))*", header)] == []


def test_counts_have_their_share_next_to_them() -> None:
    cells = build_column(FIGURES["denied"], [0, 1, 27_278, 27_279], wholes=[27_279] * 4)
    assert [cell.text for cell in cells] == ["0", "1 (0.0037 %)", "27,278 (99.9963 %)", "27,279 (100 %)"]
    assert [cell.text for cell in build_column(FIGURES["denied"], [None, 10_000_000])] == ["-", "10,000,000"]


@pytest.mark.parametrize(
    ("name", "values", "marks"),
    [
        ("over_denied", [3, 1, 2, 2], ["worst", "best", "", ""]),
        ("fairness", [0.5, 1.0, 0.9, 0.9], ["worst", "best", "", ""]),
        ("overshoot", [0.8, 1.0, 1.4, 1.2], ["best", "best", "worst", ""]),  # below 1, lower is not better
        ("over_denied", [0, 0, 0, 1], ["", "", "", "worst"]),  # most are the best
        ("over_denied", [1, 1, 1, 1], [""] * 4),
        ("fairness", [0.901, 0.902, 0.903, 0.903], [""] * 4),  # equal as printed
        ("over_denied", [None, 1, 2, 3], ["", "best", "", "worst"]),
        ("denied", [1, 2, 3, 4], [""] * 4),  # neither direction is better
    ],
)
def test_the_best_and_worst_values_are_marked_where_one_is_better(
    name: str, values: list[float | None], marks: list[str]
) -> None:
    assert [cell.mark for cell in build_column(FIGURES[name], values, with_marks=True)] == marks


@pytest.mark.parametrize(
    ("limit", "denied_only", "rows", "caption"),
    [
        (4, False, ["c", "b", "a", "d"], "the most denied first"),
        (4, True, ["c", "b"], "the 2 clients with denials"),
        (3, False, ["c", "b"], "the 2 clients with denials"),
        (1, False, ["c"], "the 1 most denied of the 2 clients with denials"),
    ],
)
def test_of_many_clients_the_denied_ones_are_listed(
    limit: int, denied_only: bool, rows: list[str], caption: str
) -> None:
    table = build_clients_table(compare_clients({"a": 1, "b": 7, "c": 8, "d": 1}), limit, denied_only)
    assert table is not None
    assert [name for name, _ in table.rows] == rows
    assert table.caption.endswith(caption)


def test_a_single_client_and_clients_without_denials_have_no_table() -> None:
    assert build_clients_table(compare_clients({"a": 9}), 10) is None
    assert build_clients_table(compare_clients({"a": 1, "b": 2}), 10) is None


# --- layout


def create_table(names: Sequence[str], headers: Sequence[str], texts: Sequence[str], key_columns: int = 0) -> Table:
    rows = [(name, [Cell(text) for text in texts]) for name in names]
    return Table("caption", ["name", *headers], rows, cut_names=True, key_columns=key_columns)


@given(
    names=st.lists(st.text("ab名", min_size=1, max_size=60), min_size=1, max_size=3),
    columns=st.lists(
        st.tuples(st.text("ab-_", min_size=1, max_size=30), st.text("09", min_size=1, max_size=30)),
        min_size=1,
        max_size=9,
    ),
    width=st.integers(60, 200),
)
def test_a_table_fits_every_width_and_shows_every_value(
    names: list[str], columns: list[tuple[str, str]], width: int
) -> None:
    lines = render(create_table(names, [header for header, _ in columns], [text for _, text in columns]), width)
    assert max(map(cell_len, lines)) <= width
    values = [word for line in lines for word in line.split() if set(word) <= {"0", "9"}]
    assert sorted(values) == sorted([text for _, text in columns] * len(names))


def test_columns_that_do_not_fit_form_tables_below_with_the_same_keys() -> None:
    headers, texts = ["burst", *"abcdefgh"], ["5", *["9" * 20] * 8]
    lines = render(create_table(["1/s"], headers, texts, key_columns=1), 80)
    assert [line.split() for line in lines if "burst" in line] == [
        ["name", "burst", *part] for part in ("abc", "def", "gh")
    ]
    assert [line.split()[:2] for line in lines if line.startswith("1/s")] == [["1/s", "5"]] * 3
    assert "burst" in render(create_table(["1/s"], headers, texts, key_columns=1), 200)[1].split()[1]
    assert len(render(create_table(["1/s"], headers, texts, key_columns=1), 200)) == 3


def test_pairs_that_do_not_fit_on_a_line_are_on_two() -> None:
    pairs = [Cell("23,456,789", before="12,345,678", mark="worst")] * 4
    table = Table("caption", ["algorithm", *["value"] * 4], [("sliding-counter", pairs)])
    assert render(table, 140)[-1].split() == ["sliding-counter", *["12,345,678", "->", "23,456,789!"] * 4]
    first, second = render(table, 80)[-2:]
    assert first.split() == ["sliding-counter", *["12,345,678"] * 4]
    assert second.split() == ["->", "23,456,789!"] * 4


def test_long_names_of_algorithms_are_broken_and_those_of_clients_cut() -> None:
    table = create_table(["x" * 200], ["value"], ["1"])
    assert "…" in "".join(render(table, 80))
    whole = "".join(render(replace(table, cut_names=False), 80))
    assert (whole.count("x"), "…" in whole) == (200, False)


def test_headers_are_whole_words_where_there_is_room() -> None:
    table = create_table(["x"], ["sliding-counter", "admitted in time"], ["1", "22"])
    assert render(table, 60)[1].split() == ["name", "sliding-counter", "admitted", "in", "time"]
    names = create_table(["x"], ["sliding-counter"] * 5, ["1"] * 5)
    assert len(render(names, 120)) == 3
    assert [line.split() for line in render(names, 60)[1:3]] == [["sliding-"] * 5, ["name", *["counter"] * 5]]


def test_figures_without_interest_for_a_run_are_left_out() -> None:
    single, several = (build_comparison_table(compare_clients(sizes)) for sizes in ({"a": 1}, {"a": 6, "b": 1}))
    assert single.headers == ["algorithm", "admitted", "denied", "most in 5 s"]
    expected = ["admitted", "delayed", "denied", "most in 5 s", "longest wait", "clients denied"]
    assert several.headers == ["algorithm", *expected]
    assert (single.note, several.note) == ("With a quota of 5 in any 5 s.", "With a quota of 5 in any 5 s.")


def test_waits_beyond_the_client_timeout_are_not_reported_as_admitted() -> None:
    table = build_comparison_table(compare_clients({"a": 30}, burst=20, timeout=4 * 10**9))
    assert table.headers[1:5] == ["admitted in time", "delayed", "too late", "denied"]
    rows = {name: [cell.text for cell in cells] for name, cells in table.rows}
    assert rows["leaky-bucket"][:4] == ["5", "19", "15", "10 (33.3 %)"]
    assert rows["token-bucket"][:4] == ["20", "0", "0", "10 (33.3 %)"]
    assert "! longer than the client timeout of 4 s" in table.note


@pytest.mark.parametrize("width", [60, 79, 80, 120])
def test_no_word_of_the_catalogue_is_cut(width: int) -> None:
    quota = Quota.parse("2/s", 5)
    entries = [describe_algorithm(algorithm, quota) for algorithm in ALGORITHMS.values()]
    console = Console(file=StringIO(), width=width)
    with console.capture() as capture:
        console.print(render_catalogue(entries, quota, width))
    lines = capture.get().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "…" not in capture.get()
    assert {entry.algorithm for entry in entries} <= {line.split()[0] for line in lines if line.strip()}


# --- sentences


SENTENCE_NUMBER = re.compile(r"[0-9][0-9,.]*(?<![.,])")


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), burst=st.integers(1, 40), timeout=st.integers(0, 30))
def test_every_number_of_the_sentences_is_in_the_tables(sizes: list[int], burst: int, timeout: int) -> None:
    comparison = compare_clients({f"client{'x' * number}": size for number, size in enumerate(sizes)}, burst, timeout)
    table, clients = build_comparison_table(comparison), build_clients_table(comparison, 99)
    shown = [*table.headers, table.note, *(cell.text for _, cells in table.rows for cell in cells)]
    shown += [describe_run(comparison.traffic, comparison.quota), clients.caption if clients else ""]
    fullest = describe_fullest(comparison)  # its time is not a figure
    sentences = [sentence for sentence in summarize(comparison, True) if sentence not in fullest]
    numbers = {number for text in shown for number in SENTENCE_NUMBER.findall(text)}
    assert {number for sentence in sentences for number in SENTENCE_NUMBER.findall(sentence)} <= numbers


def test_every_algorithm_above_the_quota_is_named_with_its_figure() -> None:
    comparison = compare_clients({"a": 9, "b": 40}, spacing=10**8)
    (protection, fullest, *_) = summarize(comparison, many_clients=True)
    for result in comparison.results:
        if result.peak_in_window > 5:
            assert f"{result.peak_in_window:,}" in protection.partition(", above")[0]
        assert result.algorithm in protection
    assert fullest == "The fullest window is that of b, at the beginning."
