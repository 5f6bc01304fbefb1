"""Figures of each algorithm in JSON, by name, with their types."""

from __future__ import annotations

FIGURES: dict[str, type | tuple[type, ...]] = {
    "algorithm": str,
    "offered": int,
    "admitted": int,
    "denied": int,
    "delayed": int,
    "admit_ratio": float,
    "peak_in_window": int,
    "overshoot": float,
    "mean_delay": float,
    "max_delay": float,
    "burstiness": (float, type(None)),
    "fairness": (float, type(None)),
    "over_admitted": (int, type(None)),
    "over_denied": (int, type(None)),
    "state_bytes_per_key": int,
    "clients": int,
    "clients_denied": int,
    "clients_denied_ratio": float,
    "in_time": int,
    "timed_out": int,
}
