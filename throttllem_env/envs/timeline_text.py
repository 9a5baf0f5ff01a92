"""A timeline as text: a sparkline, the latest value and the range of each quantity."""

from collections.abc import Mapping

import numpy as np

from throttllem_env.serving.timeline import Timeline
from throttllem_env.types import FloatArray

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 60
"""Samples that a line shows: the latest minute at one per second."""

_ROWS = (
    ("clock", "frequency_mhz", "MHz", 1.0),
    ("size", "size", "GPUs", 1.0),
    ("batch", "batch", "requests", 1.0),
    ("  projected", "projected_batch", "requests", 1.0),
    ("KV", "kv_share", "%", 100.0),
    ("  projected", "projected_kv_share", "%", 100.0),
    ("queue", "queue", "requests", 1.0),
    ("power", "power_w", "W", 1.0),
)


def sparkline(values: FloatArray, top: float) -> str:
    """Draw values from 0 to `top` as a line of bars; nan leaves a gap.

    Example:
        >>> sparkline(np.array([0.0, 5.0, float("nan"), 10.0]), 10.0)
        '▁▅ █'
    """
    levels = np.clip(np.nan_to_num(values) / (top or 1.0) * len(BARS), 0, len(BARS) - 1).astype(int)
    return "".join(" " if np.isnan(v) else BARS[level] for v, level in zip(values, levels, strict=True))


def timeline_text(timeline: Timeline, title: str, start_s: float, tops: Mapping[str, float]) -> str:
    """Draw the latest minute of a timeline.

    Args:
        timeline: The samples.
        title: What is shown.
        start_s: When the episode began; times count from there.
        tops: Tops of scales by column; the others reach to the largest value shown, and the two kinds
            of batch and KV share one scale.

    Returns:
        Lines of text.
    """
    time_s = timeline.column("time_s")
    head = f"{title} · t = {time_s[-1] - start_s:.1f} s"
    rows = [_row(timeline, *row, tops) for row in _ROWS]
    energy_kj, violations = timeline.energy_j[-1] / 1000, int(timeline.violations[-1])
    return "\n".join([head, *rows, f"energy {energy_kj:.2f} kJ · deadlines missed {violations}", ""])


def _row(
    timeline: Timeline, label: str, column: str, unit: str, factor: float, tops: Mapping[str, float]
) -> str:
    values = timeline.column(column)[-WIDTH:] * factor
    partner = timeline.column(column.removeprefix("projected_"))[-WIDTH:] * factor
    top = tops.get(column, np.nanmax(np.concatenate([values, partner]), initial=0.0))
    latest = "–" if np.isnan(values[-1]) else f"{values[-1]:.0f}"
    return f"{label:<12}{sparkline(values, float(top)):<{WIDTH}} {latest:>6} {unit} (scale 0–{top:.0f})"
