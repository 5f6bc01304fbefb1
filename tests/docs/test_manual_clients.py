"""The manual page about clients that retry: its scenarios, its presets and the lessons that it quotes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_runner import SCENARIOS, get_output
from loop_scenarios import RETRY_SCENARIOS, load_by_variant
from manual import PAGES, blocks

from ratelab.documents import Document, Kind
from ratelab.lab.scenarios import load_variants
from ratelab.lab.scenarios.clients import LoopClient
from ratelab.lab.scenarios.presets import PRESETS
from ratelab.report.verdicts import FAULTS

PAGE = "ratelab/docs/clients.md"
TEXT = PAGES[PAGE]


def read_table(header: str) -> list[list[str]]:
    """Return the cells of the table that begins with a header."""
    _, _, rest = TEXT.partition(f"| {header}")
    assert rest, header
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r" \| ", row.strip("| "))] for row in rows]


@pytest.mark.parametrize("text", [block.text for block in blocks("yaml") if block.page == PAGE])
def test_every_scenario_on_the_page_is_valid(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.yaml").write_text(text, encoding="utf-8")
    assert all(scenario.population is not None for scenario in load_variants(str(tmp_path / "page.yaml")))


def test_the_table_of_presets_has_their_keys_and_sources(tmp_path: Path) -> None:
    rows = {name.strip("`"): others for name, *others in read_table("preset | keys")}
    assert list(rows) == list(PRESETS)
    for name, (keys, left_out, source) in rows.items():
        path = tmp_path / "keys.yaml"
        path.write_text(f"{{{keys.strip('`')}}}", encoding="utf-8")
        assert Document(str(path), Kind("preset", "", "")).value == PRESETS[name].keys
        assert left_out == (PRESETS[name].left_out or "-")
        assert re.sub(r"\[(.*)\]\((.*)\)", r"\1: \2", source) == PRESETS[name].source


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_a_version_and_a_public_address(name: str) -> None:
    title, address = PRESETS[name].source.rsplit(": ", 1)
    assert address.startswith("https://")
    assert len(title.split()) > 1


def test_the_page_describes_every_key_of_a_client() -> None:
    described = {cell for name, *_ in read_table("key of a client") for cell in re.findall(r"`([a-z]+)`", name)}
    plain = {"name", "count", "key", "traffic", "cost"}
    assert described == LoopClient.model_fields.keys() - plain


def test_the_page_quotes_the_lessons_of_the_scenarios() -> None:
    rows = dict(read_table("scenario | lesson"))
    assert [name.strip("`") for name in rows] == [
        "herd-after-a-window",
        "retry-storm",
        "serial-or-open",
        "metastable-outage",
        "retry-after-jitter",
        "retry-budget",
    ]
    assert {name.strip("`") for name in rows} == {path.stem for path in RETRY_SCENARIOS}
    for name, quoted in rows.items():
        (lesson,) = {scenario.lesson for scenario in load_by_variant(name.strip("`")).values()}
        words = re.findall(r"[\w-]+", quoted.lower())
        assert set(words[:6]) <= set(re.findall(r"[\w-]+", str(lesson).lower())), name


@pytest.mark.slow
def test_the_verdict_on_the_page_is_the_one_that_is_printed() -> None:
    (shown,) = [block.text for block in blocks("text") if block.page == PAGE]
    assert get_output("simulate", SCENARIOS / "clients-that-retry" / "serial-or-open.yaml").endswith(shown)


def test_the_page_lists_every_fault_of_a_verdict() -> None:
    rows = read_table("fault | `name`")
    assert {name.strip("`") for _, name, _ in rows} == FAULTS.keys()


def test_presets_agree_with_installed_libraries() -> None:
    requests, urllib3 = pytest.importorskip("requests"), pytest.importorskip("urllib3")
    assert requests.adapters.DEFAULT_RETRIES == 0
    assert PRESETS["requests"].keys == {"retry": {"policy": "none"}}
    default = urllib3.util.Retry.DEFAULT
    retry = PRESETS["urllib3"].keys["retry"]
    assert isinstance(retry, dict)
    assert int(str(retry["attempts"])) == default.total + 1
    assert default.respect_retry_after_header
    assert default.backoff_factor == 0
    assert default.is_retry("GET", 429, has_retry_after=True)
    assert not default.is_retry("GET", 500)
