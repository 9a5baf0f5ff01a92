"""What a reproduction computes, each piece once: interrupted work goes on where it stopped.

A task is known by everything that determines its result: its own fields, the scenario with its hardware
profile and M, the content of the trace, and the source of all rooms that take part. Its result is one small
JSON file named by the hash of that.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from throttllem_env.evaluation.workers import run_parallel

TRACE_FILES = {"conv": "AzureLLMInferenceTrace_conv.csv", "code": "AzureLLMInferenceTrace_code.csv"}
"""Azure LLM inference traces of 2023, as published."""

ROOMS = ("traces", "agents", "baselines", "hardware", "prediction", "gpu", "serving")
"""Rooms whose source takes part in a result, besides the package's own files and the runner."""

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


def answer(
    tasks: Iterable[Task],
    traces: Path,
    folder: Path,
    jobs: int,
    on_start: Callable[[Path, int, int], None] = lambda *_: None,
) -> Answers:
    """Compute all tasks that have no result yet.

    Args:
        tasks: What is wanted; repeated ones are computed once.
        traces: Folder with the trace files.
        folder: Where results are kept.
        jobs: Processes.
        on_start: Told the folder in which results appear as files, how many are there, and of how many.

    Returns:
        The results by task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {task: folder / f"{key(task, traces)}.json" for task in tasks}
    _sweep(folder, set(paths.values()))
    missing = {task: path for task, path in paths.items() if not path.exists()}
    on_start(folder, len(paths) - len(missing), len(paths))
    # The long ones first, so that no process is left with one at the end.
    order = sorted(missing, key=_cost, reverse=True)
    run_parallel(_compute, [(task, traces, missing[task]) for task in order], jobs)
    return {task: json.loads(path.read_text(encoding="utf-8"))["result"] for task, path in paths.items()}


def _sweep(folder: Path, wanted: set[Path]) -> None:
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


def _compute(task: Task, traces: Path, path: Path) -> None:
    result = {"task": _described(task), "result": task.run(traces)}
    text = json.dumps(result, indent=1, allow_nan=False)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def key(task: Task, traces: Path) -> str:
    """Hash over all that determines a task's result.

    Args:
        task: The task.
        traces: Folder with the trace files.
    """
    from throttllem_env.hardware import load_profile
    from throttllem_env.prediction.ips import iteration_time
    from throttllem_env.scenario import load_scenario

    scenario = load_scenario(task.scenario)
    determines = {
        "task": _described(task),
        "scenario": scenario.model_dump(mode="json"),
        "profile": asdict(load_profile(scenario.model, scenario.gpu)),
        "iteration_time": iteration_time(scenario).identity,
        "trace": _file_digest(traces / TRACE_FILES[task.trace]),
        "source": source_digest(),
    }
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()[:20]


@cache
def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def source_digest() -> str:
    """SHA-256 over the source of everything that takes part in a run."""
    from importlib import import_module

    digest = hashlib.sha256()
    package = Path(str(import_module("throttllem_env").__file__)).parent
    rooms = [Path(str(import_module(f"throttllem_env.{room}").__file__)).parent for room in ROOMS]
    files = [*package.glob("*.py"), *(path for room in rooms for path in sorted(room.rglob("*.py")))]
    evaluation = package / "evaluation"
    files += [evaluation / name for name in ("runner.py", "metrics.py", "compare.py", "projection_error.py")]
    files.append(evaluation / "reproduction" / "limits.py")
    for path in sorted(files):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
