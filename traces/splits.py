"""The frozen train, validation and test parts of a trace.

An hour is cut into twelve blocks of five minutes. What is fitted, tuned or trained sees
train (and validation) blocks only, and what is reported comes from test blocks. The blocks
interleave, because the load of an hour drifts: its last third is not like its first.
"""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

from throttllem_env.traces.errors import TraceError, nearest_hint

__all__ = ["BLOCK_S", "GUARD_S", "SPLIT_BLOCKS", "Split", "block_spans"]

Split = Literal["train", "validation", "test"]

BLOCK_S: Final = 300.0
"""Length of a block, in seconds."""

GUARD_S: Final = 30.0
"""What each block loses at its start, so that no request of its neighbour is still in flight."""

SPLIT_BLOCKS: Final[dict[Split, tuple[int, ...]]] = {
    "train": (0, 2, 4, 6, 8, 10),
    "validation": (1, 5, 9),
    "test": (3, 7, 11),
}
"""Indices of each split's blocks within an hour; later hours repeat them."""

_BLOCKS_PER_PATTERN: Final = 12


def block_spans(duration_s: float, split: Split) -> list[tuple[float, float]]:
    """Return where the blocks of a split lie, guards taken off.

    Args:
        duration_s: Length of the trace, in seconds.
        split: Which part: train, validation or test.

    Returns:
        Start and end of each block, in seconds. The last may be short; one that
        would be all guard is left out.

    Raises:
        TraceError: If there is no such split.
    """
    members = _members(split)
    spans = []
    for index in range(math.ceil(duration_s / BLOCK_S)):
        start_s = index * BLOCK_S + GUARD_S
        end_s = min((index + 1) * BLOCK_S, duration_s)
        if index % _BLOCKS_PER_PATTERN in members and end_s > start_s:
            spans.append((start_s, end_s))
    return spans


def _members(split: Split) -> tuple[int, ...]:
    if split not in SPLIT_BLOCKS:
        names = get_args(Split)
        accepted = f"one of {', '.join(names)}{nearest_hint(str(split), names)}"
        raise TraceError.at(None, None, "split", split, accepted)
    return SPLIT_BLOCKS[split]
