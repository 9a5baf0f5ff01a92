"""What the samples of a watched service say: clocks, times between tokens, energy."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from throttllem_env.evaluation.full_stack.watch import Sample

SETTLED_S = 1.0
"""A clock that has been asked for this long has been set: one down waits a quarter of a second."""
STEP_MHZ = 30
"""Smaller steps down are not worth a change (throttllem_env.gpu.flapping)."""
WINDOW_S = 1.0
BANDS_MHZ = (0, 300, 450, 600, 750, 900, 1050, 1200, 1350, 10_000)


def clocks(samples: Sequence[Sample]) -> dict[str, Any]:
    """How GPUs follow the clock that is asked of them.

    Counted are moments in which one server is there alone and the same clock has been asked for a second.

    Args:
        samples: In order.

    Returns:
        How many moments, how many different clocks, and at how many every GPU was at the clock asked for, or
        less than a step above it.
    """
    settled = [each for index, each in enumerate(samples) if _settled(samples, index)]
    followed = [s for s in settled if all(0 <= s.mhz[gpu] - s.asked_mhz < STEP_MHZ for gpu in s.held)]
    return {
        "moments": len(settled),
        "clocks": len({each.asked_mhz for each in settled}),
        "followed": len(followed),
    }


def _settled(samples: Sequence[Sample], index: int) -> bool:
    now = samples[index]
    if now.time_s - samples[0].time_s < SETTLED_S:
        return False
    for before in reversed(samples[: index + 1]):
        if before.instances != 1 or before.held != now.held or before.asked_mhz != now.asked_mhz:
            return False
        if now.time_s - before.time_s >= SETTLED_S:
            return True
    return False


def tbt(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Times between tokens by the clock: as clients see them pass, and as long as iterations take.

    Counted are windows of a second in which one server is there alone and the clock stands.

    Args:
        samples: In order.

    Returns:
        A row per band of clocks: tokens, their mean clock, and both mean times, seconds.
    """
    rows = [row for before, after in _windows(samples) if (row := _window(before, after)) is not None]
    found = []
    for low, high in pairwise(BANDS_MHZ):
        inside = np.array([row for row in rows if low <= row[0] < high])
        if len(inside):
            tokens = inside[:, 1]
            mhz, seen_s, run_s = (float(np.average(inside[:, i], weights=tokens)) for i in (0, 2, 3))
            found.append({"mhz": mhz, "tokens": float(tokens.sum()), "tbt_s": seen_s, "iteration_s": run_s})
    return found


def _windows(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Beginning and end of each stretch of about a second with the same clock and the same server."""
    found, first = [], 0
    for index, now in enumerate(samples):
        begin = samples[first]
        if now.held != begin.held or now.instances != 1 or now.mhz.tolist() != begin.mhz.tolist():
            first = index
        elif now.time_s - begin.time_s >= WINDOW_S:
            found.append((begin, now))
            first = index
    return found


def _window(before: Sample, after: Sample) -> tuple[float, float, float, float] | None:
    """Clock, tokens, and both times; None without tokens."""
    gpu = min(before.held, default=0)
    tokens = after.tbt_tokens - before.tbt_tokens
    iterations = after.iterations[gpu] - before.iterations[gpu]
    if tokens <= 0 or iterations <= 0:
        return None
    run_s = (after.iteration_s[gpu] - before.iteration_s[gpu]) / iterations
    return float(before.mhz[gpu]), tokens, (after.tbt_s - before.tbt_s) / tokens, float(run_s)


def account_j(samples: Sequence[Sample], idle_w: Callable[[int], float], gpus: Sequence[int]) -> float:
    """What GPUs drew by the executors' own account, and idling besides.

    Args:
        samples: In order.
        idle_w: Idle power at a clock.
        gpus: Which; each counts all the time.
    """
    return sum(_drawn_j(before, after, idle_w, gpu) for before, after in pairwise(samples) for gpu in gpus)


def held_j(samples: Sequence[Sample], idle_w: Callable[[int], float]) -> float:
    """The same of GPUs while servers have them.

    Args:
        samples: In order.
        idle_w: Idle power at a clock.
    """
    pairs = pairwise(samples)
    return sum(_drawn_j(a, b, idle_w, gpu) for a, b in pairs for gpu in a.held & b.held)


def _drawn_j(before: Sample, after: Sample, idle_w: Callable[[int], float], gpu: int) -> float:
    """Iterations at what they drew, the rest of the time at the idle power of the clock."""
    busy_s = after.iteration_s[gpu] - before.iteration_s[gpu]
    idle_s = after.time_s - before.time_s - busy_s
    mean_w = (idle_w(int(before.mhz[gpu])) + idle_w(int(after.mhz[gpu]))) / 2
    return float(after.iteration_j[gpu] - before.iteration_j[gpu] + mean_w * idle_s)
