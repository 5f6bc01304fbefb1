"""What each figure means, for people."""

from __future__ import annotations

MEANINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("offered", "admitted", "denied", "delayed"), "requests; delayed ones were admitted and had to queue"),
    (("admit_ratio",), "admitted over offered"),
    (("peak_in_window",), "the most cost of one key that left in any window"),
    (("overshoot",), "that over burst: above 1, the quota was exceeded"),
    (("mean_delay", "max_delay"), "seconds in the queue"),
    (
        ("burstiness",),
        "coefficient of variation of the gaps between departures: 0 a metronome, 1 random, above it bursts",
    ),
    (("fairness",), "Jain's index of the clients' admitted shares: 1 all alike, 1/n one gets everything"),
    (("over_admitted", "over_denied"), "requests admitted that the exact sliding log denies, and the reverse"),
    (("state_bytes_per_key",), "eight bytes for each number in a key's state"),
    (("clients", "clients_denied", "clients_denied_ratio"), "clients that sent anything, and those ever denied"),
    (
        ("at_most",),
        "the most that the algorithm promises to let out in any window; beside it, peak_in_window is what it did",
    ),
    (("peak_at", "peak_key"), "when the fullest window began, in seconds, and whose it was"),
    (
        ("unearned",),
        "requests admitted although what the algorithm itself had admitted in the window before left no room",
    ),
    (("withheld",), "requests denied although it left room"),
)
"""The figures of a result and of its accuracy card, by name, as the README tells them."""
