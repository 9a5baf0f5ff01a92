"""What a benchmark found: repeated measurements under a name, and how they are timed."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, measured several times.

    Attributes:
        name: What was measured.
        unit: Its unit.
        values: One per repeat.
        note: Under which circumstances, for people.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """The figure to be quoted."""
        return median(self.values)

    def entry(self) -> dict[str, Any]:
        """As it stands in the JSON file."""
        values = list(self.values)
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "values": values,
            "note": self.note,
        }


def rates(amount: float, work: Callable[[], object], repeats: int) -> tuple[float, ...]:
    """Time work and say how much of it is done per second.

    Args:
        amount: What one call does, in any unit.
        work: Timed alone; the collector of garbage runs between calls only. Called once before, to warm up.
        repeats: Timed calls.
    """
    work()
    return tuple(amount / seconds(work) for _ in range(repeats))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    gc.collect()
    gc.disable()
    try:
        begin_s = time.perf_counter()
        work()
        return time.perf_counter() - begin_s
    finally:
        gc.enable()


def rows(figures: Sequence[Figure]) -> list[list[str]]:
    """Rows of a table: name, median, range, unit, note."""
    return [
        [f.name, number(f.median), f"{number(min(f.values))} to {number(max(f.values))}", f.unit, f.note]
        for f in figures
    ]


def number(value: float) -> str:
    """Three significant digits, more before the point.

    Example:
        >>> number(1234567.0), number(12.345), number(0.012345)
        ('1,234,567', '12.3', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
