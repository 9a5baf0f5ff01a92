"""Requests per second of the simulator at a fixed action, and the memory that a run takes."""

import subprocess
import sys

import numpy as np

from throttllem_env.evaluation.bench.figures import Figure, rates, seconds
from throttllem_env.scenario import Scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import Trace
from throttllem_env.types import Action

DRAIN_S = 60.0
WARM_UP_S = 60.0
KB_PER_GB = 1e6


def simulated_requests(scenario: Scenario, trace: str, repeats: int) -> Figure:
    """The whole trace at rated load, largest size, top clock.

    Args:
        scenario: What is served on what.
        trace: As `throttllem compare` takes it.
        repeats: Timed runs.
    """
    served = prepare_workload(trace, scenario).trace
    values = rates(len(served), lambda: serve(scenario, served), repeats)
    return Figure("simulated requests", "requests/s", values, f"{len(served):,} requests, top clock")


def at_scale(scenario: str, trace: str, requests: int, repeats: int) -> list[Figure]:
    """The same over a trace that is repeated until it has so many requests, each time in a fresh process.

    Args:
        scenario: A shipped one, or a YAML file.
        trace: As `throttllem compare` takes it.
        requests: How many.
        repeats: Processes.

    Returns:
        Requests per second, and peak memory of the process.

    Raises:
        RuntimeError: A process failed.
    """
    found = [_in_a_process(scenario, trace, requests) for _ in range(repeats)]
    rate, memory = zip(*found, strict=True)
    name = f"simulated requests, {requests:.0e}".replace("+0", "")
    note = "the trace repeated; a fresh process"
    return [
        Figure(name, "requests/s", rate, note),
        Figure(f"{name}: peak memory", "GB", memory, "records of all requests included"),
    ]


def _in_a_process(scenario: str, trace: str, requests: int) -> tuple[float, float]:
    """Requests per second and peak memory, GB."""
    command = [sys.executable, "-m", __name__, scenario, trace, str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {done.stderr.strip().splitlines()[-1]}")
    rate, memory = done.stdout.split()
    return float(rate), float(memory)


def serve(scenario: Scenario, trace: Trace) -> None:
    """Serve a trace to its end at the top clock and keep what became of its requests."""
    backend = make_backend("simulator", scenario)
    backend.reset(trace, 0)
    backend.apply(Action(scenario.top_mhz, scenario.largest_size))
    backend.advance(trace.duration_s + DRAIN_S)
    backend.records()
    backend.close()


def repeated(trace: Trace, requests: int) -> Trace:
    """A trace one after another until it has so many requests."""
    times = -(-requests // len(trace))
    starts_s = np.repeat(np.arange(times) * trace.duration_s, len(trace))[:requests]
    arrival_s = np.resize(trace.arrival_s, requests) + starts_s
    return Trace(
        np.maximum.accumulate(arrival_s),  # where one ends and the next begins, rounding may swap them
        np.resize(trace.prompt_tokens, requests),
        np.resize(trace.output_tokens, requests),
    )


def main() -> None:
    """Serve once in this process; prints requests per second and peak memory, GB."""
    import resource

    from throttllem_env.scenario import load_scenario

    spec, trace_spec, requests = sys.argv[1:]
    scenario = load_scenario(spec)
    once = prepare_workload(trace_spec, scenario).trace
    serve(scenario, once.window(0.0, WARM_UP_S))
    trace = repeated(once, int(requests))
    rate = len(trace) / seconds(lambda: serve(scenario, trace))
    print(rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KB_PER_GB)


if __name__ == "__main__":
    main()
