"""Outputs of scenarios whose clients do not react: the same bytes as before there were clients that do."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from cli_runner import SCENARIOS, get_output
from slow_parameters import mark_slow

DIGESTS = {
    "boundary-burst.yaml": "1d4c1a5d91eca558",
    "burned-quota.yaml": "dc6267e223acf731",
    "burst.yaml": "97251c0ac2acf25a",
    "costly-requests.yaml": "7c27ec0e251863bb",
    "diurnal.yaml": "414fb8832755054e",
    "global-counter.yaml": "797d5fc913c94fe3",
    "noisy-neighbour.yaml": "368bb2917f6901f2",
    "on-off.yaml": "9db3f0aba40e2476",
    "overload.yaml": "fd2ab4437af7354c",
    "oversized-max-tokens.yaml": "9d51eb2a481aa333",
    "ramp.yaml": "928dcc3d6f534117",
    "sliding-counter-claim/at-the-limit.yaml": "9f09eafb9039f39a",
    "sliding-counter-claim/bursts.yaml": "4e8368d38109f21a",
    "sliding-counter-claim/far-above.yaml": "b51096621778766f",
    "sliding-counter-claim/half-the-limit.yaml": "bc658dfcd4958ecc",
    "sliding-counter-claim/near-the-limit.yaml": "81c48725bca34396",
    "slow-trickle.yaml": "48f4c99a002b4737",
    "starved-organisation.yaml": "13f4769cf1eef15d",
    "steady.yaml": "333c007059d719f2",
    "thundering-herd.yaml": "8154de5b64a4a01c",
}
FAST = ["burst.yaml", "noisy-neighbour.yaml", "oversized-max-tokens.yaml"]


@pytest.mark.parametrize("scenario", mark_slow(DIGESTS, FAST))
def test_tables_json_csv_and_events_have_the_recorded_digest(scenario: str, tmp_path: Path) -> None:
    table, events = tmp_path / "table.csv", tmp_path / "events.jsonl"
    path = SCENARIOS / scenario
    digest = sha256(get_output("simulate", path, "--all-figures").encode())
    digest.update(get_output("simulate", path, "--json", "--csv", table, "--events", events).encode())
    digest.update(table.read_bytes() + events.read_bytes())
    assert digest.hexdigest().startswith(DIGESTS[scenario])
