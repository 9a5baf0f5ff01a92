"""What a reproduction computes, each piece once: interrupted work goes on where it stopped.

A task is known by everything that determines its result: its own fields, the scenario with its hardware
profile and M, the content of the trace, and the source of all rooms that take part. Its result is one small
JSON file named by the hash of that.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from throttllem_env.evaluation.sweeps.identity import file_digest, fingerprint, scenario_identity
from throttllem_env.evaluation.sweeps.place import Place
from throttllem_env.evaluation.sweeps.sweep import Failed, Shelf, sweep
from throttllem_env.evaluation.sweeps.workers import open_place

TRACE_FILES = {"conv": "AzureLLMInferenceTrace_conv.csv", "code": "AzureLLMInferenceTrace_code.csv"}
"""Azure LLM inference traces of 2023, as published."""

Answers = dict["Task", dict[str, Any]]


class Task(Protocol):
    """Something to compute; a frozen dataclass, so that it can be a key."""

    def run(self, traces: Path) -> dict[str, Any]:
        """Compute it.

        Args:
            traces: Folder with the trace files.

        Returns:
            Plain values.
        """
        ...

    @property
    def scenario(self) -> str:
        """Name of the scenario."""
        ...

    @property
    def trace(self) -> str:
        """Key in `TRACE_FILES`."""
        ...


@dataclass(frozen=True, slots=True)
class RunTask:
    """One agent on one trace.

    Attributes:
        scenario: Name of the scenario.
        agent: The controller as it is named on the command line.
        trace: Key in `TRACE_FILES`.
        load: Share of the rated load.
        length_predictor: As `throttllem compare` takes it.
        slo_scale: Factor on the latency SLOs.
        split: Which blocks of the trace.
    """

    scenario: str
    agent: str
    trace: str = "conv"
    load: float = 1.0
    length_predictor: str = "learned"
    slo_scale: float = 1.0
    split: str = "all"

    def run(self, traces: Path) -> dict[str, Any]:
        """Run it as `throttllem compare` would, with seed 0; gives the metrics."""
        from throttllem_env.evaluation.compare import run_one
        from throttllem_env.evaluation.results import plain
        from throttllem_env.evaluation.settings import Settings
        from throttllem_env.scenario import load_scenario

        settings = Settings(
            (self.agent,),
            scenario=self.scenario,
            trace=str(traces / TRACE_FILES[self.trace]),
            load=self.load,
            slo_scale=self.slo_scale,
            length_predictor=self.length_predictor,
            split=self.split,
        )
        run = run_one(settings, load_scenario(self.scenario), self.agent, seed=0)
        found: dict[str, Any] = plain(
            dict(run.result.metrics) | {"iteration_time": run.result.iteration_time}
        )
        return found


@dataclass(frozen=True, slots=True)
class ProjectionTask:
    """Projections of a run held against what happens; see `projection_errors`.

    Attributes:
        scenario: Name of the scenario.
        agent: Who sets the clock meanwhile.
        trace: Key in `TRACE_FILES`.
        load: Share of the rated load.
        duration_s: How much of the scaled trace is served.
    """

    scenario: str
    agent: str
    trace: str = "conv"
    load: float = 1.0
    duration_s: float = 600.0

    def run(self, traces: Path) -> dict[str, Any]:
        """Watch it; gives errors by reach."""
        from throttllem_env.controller import make_controller
        from throttllem_env.evaluation.projection_error import projection_errors
        from throttllem_env.scenario import load_scenario
        from throttllem_env.serving.workload import prepare_workload

        scenario = load_scenario(self.scenario)
        path = str(traces / TRACE_FILES[self.trace])
        workload = prepare_workload(path, scenario, load=self.load, duration_s=self.duration_s)
        found = projection_errors(scenario, make_controller(self.agent), workload)
        return {error.reach: asdict(error) for error in found}


class FailedTasksError(RuntimeError):
    """Tasks failed after all others were done; those are kept.

    Attributes:
        failures: Why, by task.
    """

    def __init__(self, failures: "dict[Task, Failed]") -> None:
        """Take note of them."""
        self.failures = failures
        super().__init__(f"{len(failures)} tasks failed")

    def lines(self) -> list[str]:
        """One line per task, for people."""
        return [f"{_described(task)} failed: {failed.error}" for task, failed in self.failures.items()]


def answer(
    tasks: Iterable[Task],
    traces: Path,
    folder: Path,
    jobs: int | None,
    on_start: Callable[[Path, int, int], None] = lambda *_: None,
    *,
    cluster: str | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> Answers:
    """Compute all tasks that have no result yet.

    Args:
        tasks: What is wanted; repeated ones are computed once.
        traces: Folder with the trace files.
        folder: Where results are kept.
        jobs: Processes; None for one, or for all cores of the cluster.
        on_start: Told the folder in which results appear as files, how many are there, and of how many.
        cluster: As `throttllem compare` takes it.
        notify: Told which cluster is used.

    Returns:
        The results by task.

    Raises:
        FailedTasksError: Some failed; all others were computed and kept.
    """
    # The long ones first, so that no process is left with one at the end.
    order = sorted(dict.fromkeys(tasks), key=_cost, reverse=True)
    keys = {task: key(task, traces) for task in order}
    shelf = Shelf(folder, ".json", _dump, _load)
    _tidy(folder, {shelf.path(key) for key in keys.values()})
    with open_place(jobs, cluster) as place:
        if place.description:
            notify(place.description)
        source = _reachable(place, traces, order)
        done = sweep(
            place,
            _compute,
            {keys[task]: (task, source) for task in order},
            shelf,
            on_start=lambda there: on_start(folder, len(there), len(order)),
        )
    ended = {task: done[keys[task]] for task in order}
    failures = {task: result for task, result in ended.items() if isinstance(result, Failed)}
    if failures:
        raise FailedTasksError(failures)
    return {task: result["result"] for task, result in ended.items() if not isinstance(result, Failed)}


def _tidy(folder: Path, wanted: set[Path]) -> None:
    """Throw results away that nobody asks for: they are of other sources or settings."""
    for path in folder.glob("*.json"):
        if path not in wanted:
            path.unlink()


def _described(task: Task) -> dict[str, Any]:
    """Its kind and its fields."""
    return {"kind": type(task).__name__, **asdict(task)}  # type: ignore[call-overload]


def _cost(task: Task) -> float:
    """Longer at lower loads, with decisions, and on small instances; only the order depends on it."""
    fields = _described(task)
    share = 0.25 if fields.get("split", "all") != "all" else 1.0
    decides = 1.0 if fields.get("agent", "").startswith("throttllem") else 0.4
    small = 5.0 if "tp1" in fields["scenario"] else 1.0
    return float(share * decides * small / fields["load"])


def _reachable(place: Place, traces: Path, tasks: list[Task]) -> Path | Mapping[str, bytes]:
    """The folder of traces, or for workers on other machines what its files hold."""
    if place.shared_memory:
        return traces
    names = sorted({TRACE_FILES[task.trace] for task in tasks})
    return place.share({name: (traces / name).read_bytes() for name in names})


def _compute(task: Task, traces: Path | Mapping[str, bytes]) -> dict[str, Any]:
    """Run a task, if need be in a folder made for it."""
    if isinstance(traces, Path):
        return {"task": _described(task), "result": task.run(traces)}
    with tempfile.TemporaryDirectory(prefix="throttllem-") as name:
        for file, content in traces.items():
            (Path(name) / file).write_bytes(content)
        return _compute(task, Path(name))


def _dump(result: dict[str, Any]) -> bytes:
    return f"{json.dumps(result, indent=1, allow_nan=False)}\n".encode()


def _load(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)
    return found


def key(task: Task, traces: Path) -> str:
    """Hash over all that determines a task's result.

    Args:
        task: The task.
        traces: Folder with the trace files.
    """
    from throttllem_env.scenario import load_scenario

    return fingerprint(
        {
            "task": _described(task),
            **scenario_identity(load_scenario(task.scenario)),
            "trace": file_digest(traces / TRACE_FILES[task.trace]),
        }
    )
