"""How well this machine keeps real time: what is late for want of a core shows in every latency."""

import datetime
import json
import os
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

TICK_S = 0.005
"""Short against an iteration, long against what a sleep costs."""


class Overshoot:
    """Measures, for the length of a block, how much longer than asked sleeps take in this process.

    It waits for a core and for Python's lock just as the gateway and the load do.
    """

    def __init__(self) -> None:
        self._late_s: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="overshoot", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        due_s = time.monotonic() + TICK_S
        while not self._done.wait(max(due_s - time.monotonic(), 0.0)):
            now_s = time.monotonic()
            self._late_s.append(now_s - due_s)
            due_s = now_s + TICK_S

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
