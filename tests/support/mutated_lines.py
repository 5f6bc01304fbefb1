"""Text files that are damaged at random."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def mutate_lines(lines: Sequence[str], pieces: Sequence[str], random: Random) -> str:
    """Return a text with a few lines dropped, repeated, moved, or overwritten in part by one of `pieces`."""
    mutated = list(lines)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(mutated))
        line = mutated[place]
        begin, end = sorted(random.choices(range(len(line) + 1), k=2))
        spliced = line[:begin] + random.choice(pieces) + line[end:]
        mutated[place : place + 1] = random.choice([[], [line] * 2, [random.choice(lines)], [spliced], [spliced]])
        mutated = mutated or [""]
    return "\n".join(mutated)
