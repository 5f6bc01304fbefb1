"""Policy files that are read again after a change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from invalid_policies import VALID_POLICIES

from ratelab import InputError
from ratelab.http.file_policies import WatchedPolicyFile


def write(path: Path, text: str, seconds: int) -> str:
    """Write a file that changed at a time; return its path."""
    path.write_text(text)
    os.utime(path, (seconds, seconds))
    return str(path)


def test_a_file_is_read_again_after_a_change_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    watched = WatchedPolicyFile(write(path, VALID_POLICIES, 1))
    assert watched.read_changed() is None
    write(path, VALID_POLICIES.replace("1000/day", "2000/day"), 2)
    content = watched.read_changed()
    assert content is watched.content
    assert content is not None
    assert content.policies[1].quota.burst == 2000
    assert watched.read_changed() is None
    assert watched.read_changed(force=True) is not None


def test_a_replaced_file_of_the_same_time_and_size_counts_as_changed(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    watched = WatchedPolicyFile(write(path, VALID_POLICIES, 1))
    write(tmp_path / "new.yaml", VALID_POLICIES.replace("1000/day", "2000/day"), 1)
    (tmp_path / "new.yaml").replace(path)
    assert watched.read_changed() is not None


def test_an_invalid_or_missing_file_is_an_error_once_and_the_old_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    watched = WatchedPolicyFile(write(path, VALID_POLICIES, 1))
    old = watched.content
    write(path, VALID_POLICIES.replace("1000/day", "x"), 2)
    with pytest.raises(InputError, match=r"policies.yaml:4: policies\[1\].rate: rate must look like"):
        watched.read_changed()
    assert watched.read_changed() is None
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        watched.read_changed()
    assert watched.read_changed() is None
    assert watched.content is old
    write(path, VALID_POLICIES, 3)
    assert watched.read_changed() is not None


def test_a_change_of_the_file_of_plans_is_noticed(tmp_path: Path) -> None:
    plans = tmp_path / "plans.csv"
    write(plans, "alice,free\n", 1)
    text = VALID_POLICIES.replace("header: X-Plan", "file: plans.csv")
    watched = WatchedPolicyFile(write(tmp_path / "policies.yaml", text, 1))
    write(plans, "alice,premium\n", 2)
    content = watched.read_changed()
    assert content is not None
    assert content.plan_of == {"alice": "premium"}
    write(plans, "alice,gold\n", 3)
    with pytest.raises(InputError, match=r"plans.csv:1: unknown plan 'gold'"):
        watched.read_changed()
