"""How well this machine keeps real time: what is late for want of a core shows in every latency."""

import datetime
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from throttllem_env.evaluation.sampling import Sampler

TICK_S = 0.005
"""Short against an iteration, long against what a sleep costs."""


class Overshoot(Sampler):
    """Measures, for the length of a block, how much longer than asked sleeps take in this process.

    It waits for a core and for Python's lock just as the gateway and the load do.
    """

    def __init__(self) -> None:
        super().__init__(TICK_S, "overshoot")
        self._late_s: list[float] = []

    def look(self, late_s: float) -> None:
        """Keep how late this look is."""
        self._late_s.append(late_s)

    def figures(self) -> dict[str, float]:
        """Seconds: their mean, median and 99th percentile."""
        late_s = np.array(self._late_s or [0.0])
        p50_s, p99_s = (float(np.percentile(late_s, share)) for share in (50, 99))
        return {"mean_s": float(late_s.mean()), "p50_s": p50_s, "p99_s": p99_s}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def made_by(script: str, load: float) -> dict[str, Any]:
    """What stands at the head of a measurement on this machine: the command, the day, the cores, the load.

    Args:
        script: The script that measures, as it is called from the repository.
        load: Share of the rated load.
    """
    return {
        "command": shlex.join(["python", script, *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": cores(),
        "load": load,
    }


def write_measurement(found: dict[str, Any], path: Path | None) -> None:
    """Keep a measurement as JSON.

    Args:
        found: Plain values.
        path: The file, whose folder is made; None to keep nothing.
    """
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
