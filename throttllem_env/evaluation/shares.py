"""How far runs in other processes are."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Shares:
    """A file of numbers, one per run, that all processes map into their memory.

    Cheaper than a queue: a run reports at every control point, and is read a few times per second.

    Attributes:
        path: The file: float64[runs], from 0 to 1.
        runs: How many runs.
    """

    path: Path
    runs: int

    @classmethod
    @contextmanager
    def of(cls, runs: int) -> "Iterator[Shares]":
        """Keep such a file for as long as the context lasts."""
        with tempfile.TemporaryDirectory(prefix="throttllem-") as folder:
            path = Path(folder) / "shares"
            path.write_bytes(np.zeros(runs).tobytes())
            yield cls(path, runs)

    def open(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The numbers, to be read or written in place."""
        return np.memmap(self.path, np.float64, mode="r+", shape=(self.runs,))
