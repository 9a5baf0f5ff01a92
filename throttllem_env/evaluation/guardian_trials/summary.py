"""Running trials, and what came of them."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.guardian_trials.controllers import nursery
from throttllem_env.evaluation.guardian_trials.events import EVENTS
from throttllem_env.evaluation.guardian_trials.stage import FAULTS, GPUS, IDLE_W, Stage, Trial
from throttllem_env.gpu import DeviceFile
from throttllem_env.gpu.guardian import StateFolder


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        trial: Which.
        waited_s: How long the GPUs waited to be restored; None if they were not.
        locked: Whether some GPU was locked when it happened.
        sets: Changes of clocks that were made, restore settings among them.
        problem: What is not as it was before; empty if everything is.
    """

    trial: Trial
    waited_s: float | None
    locked: bool
    sets: int
    problem: str = ""


def kills(count: int, driver: str = "nvml") -> list[Trial]:
    """Kills of a controller: a third at any time, a third in its first lock, a third later."""
    moments = ("any", "first", "later")
    return [Trial(moment=moments[seed % 3], driver=driver, seed=seed) for seed in range(count)]


def mishaps(each: int, driver: str = "nvml") -> list[Trial]:
    """Everything else that can happen, with every fault, so many times each."""
    return [
        Trial(kind, fault, ("first", "later")[seed % 2], driver, seed)
        for kind in EVENTS
        for fault in FAULTS
        if (kind, fault) != ("controller killed", "none")
        for seed in range(each)
    ]


def run_all(trials: Sequence[Trial], environment: Mapping[str, str], device_path: Path) -> Iterator[Outcome]:
    """Run trials, one after another.

    Args:
        trials: Which.
        environment: Variables of every process that reaches the GPUs.
        device_path: Where emulated GPUs are put; where `environment` leads pynvml's library.

    Yields:
        What came of each.
    """
    device = DeviceFile.create(device_path, IDLE_W, GPUS)
    try:
        with nursery(environment) as source:
            for trial in trials:
                # A journal of its own for each, on a short path.
                with tempfile.TemporaryDirectory(prefix="guardian-") as folder:
                    yield run(Stage(trial, Path(folder) / "state", device, source, environment))
    finally:
        device.close()


def run(stage: Stage) -> Outcome:
    """Run a trial, and look whether anything is left of it."""
    before = stage.device.gpus["sets"].sum()
    waited_s, locked, problem = None, False, ""
    try:
        stage.begin()
        stage.begin_fault()
        locked = not stage.restored()
        waited_s = EVENTS[stage.trial.kind](stage)
        problem = _find_remains(stage)
    except (TimeoutError, RuntimeError, OSError) as error:
        problem = str(error)
    finally:
        stage.clean_up()
    return Outcome(stage.trial, waited_s, locked, int(stage.device.gpus["sets"].sum() - before), problem)


def _find_remains(stage: Stage) -> str:
    """What should not be there any more, once the guardians have had the time to end."""
    stage.wait(lambda: not stage.guardians(), "the guardians' end")
    if not stage.folder.exists():
        return ""
    state = StateFolder(stage.folder)
    try:
        left = state.uuids()
    finally:
        state.close()
    if left:
        return f"left in the journal: {', '.join(left)}"
    return "" if stage.restored() else "locked again by nobody"


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Counts and times, for each kind of event and fault, in seconds."""

    def key(outcome: Outcome) -> tuple[int, int]:
        return list(EVENTS).index(outcome.trial.kind), list(FAULTS).index(outcome.trial.fault)

    rows = []
    for (kind, fault), group in groupby(sorted(outcomes, key=key), key):
        found = list(group)
        times_s = [outcome.waited_s for outcome in found if outcome.waited_s is not None]
        rows.append(
            {
                "event": list(EVENTS)[kind],
                "fault": list(FAULTS)[fault],
                "trials": len(found),
                "locked": sum(1 for outcome in found if outcome.locked),
                "restored": sum(
                    1 for outcome in found if outcome.waited_s is not None and not outcome.problem
                ),
                "median_s": round(statistics.median(times_s), 4) if times_s else None,
                "longest_s": round(max(times_s), 4) if times_s else None,
            }
        )
    return rows


def document(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> dict[str, Any]:
    """All results, as JSON has them.

    Args:
        outcomes: Of all trials.
        about: What else to note: machine, command.
    """
    problems = [asdict(outcome) for outcome in outcomes if outcome.problem]
    return {
        "date": time.strftime("%Y-%m-%d"),
        **about,
        "gpus": GPUS,
        "sets": sum(outcome.sets for outcome in outcomes),
        "summary": summary(outcomes),
        "problems": problems,
    }
