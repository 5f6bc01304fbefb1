"""Tables: their content for any comparison, and their layout in a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_runs import create_column
from rich.cells import cell_len
from rich.console import Console

from ratelab import Quota, create
from ratelab.algorithms import COMPARED
from ratelab.lab.accuracy import Accuracy
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.lab.traffic import Traffic
from ratelab.report.tables import Cell, Table, build_clients_table, build_column, build_comparison_table, render_table

FIGURES = {name: figure for kind in (Result, Accuracy, EqualResult) for name, figure in list_figures(kind).items()}


def compare_clients(sizes: dict[str, int]) -> Comparison:
    """Compare algorithms for clients that send this number of requests at once."""
    clients = create_column([number for number, size in enumerate(sizes.values()) for _ in range(size)])
    traffic = Traffic(0 * clients, clients, 0 * clients + 1, (*sizes,), create_column(range(len(sizes))), 5 * 10**9)
    return compare([create(name, Quota.parse("1/s", 5)) for name in COMPARED], traffic)


def render(table: Table, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width)
    with console.capture() as capture:
        console.print(render_table(table, width))
    return capture.get().splitlines()


# --- content


def test_headers_are_the_names_of_figures() -> None:
    headers = {name: figure.header.replace("\N{SOFT HYPHEN}", "") for name, figure in FIGURES.items() if figure.header}
    assert headers == {name: name for name in headers}


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 9_999, 999_999], ["0", "9,999", "999,999"]),
        ([0, 9_999, 12_345, 999_999, 10_000_000], ["0", "9,999", "0.012M", "1.000M", "10.000M"]),
        ([None, 1], ["-", "1"]),
    ],
)
def test_counts_of_one_column_have_one_format(values: list[int | None], texts: list[str]) -> None:
    assert [cell.text for cell in build_column(FIGURES["over_denied"], values, in_millions=True)] == texts
    exact = ["-" if value is None else f"{value:,}" for value in values]
    assert [cell.text for cell in build_column(FIGURES["over_denied"], values)] == exact


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
    width=st.integers(80, 200),
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


def test_figures_without_interest_for_a_run_are_left_out() -> None:
    single, several = (build_comparison_table(compare_clients(sizes)) for sizes in ({"a": 1}, {"a": 6, "b": 1}))
    assert {"delayed", "max_delay", "fairness", "clients_denied_ratio"}.isdisjoint(single.headers)
    assert {"delayed", "max_delay", "fairness", "clients_denied_ratio"} <= {*several.headers}
