"""What can be wrong when an agent is deployed: each condition is a case of its own, watched over or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from throttllem_env.scenario import Deviation, Scenario, Switching, load_scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import Trace
from throttllem_env.traces.parquet import write_parquet
from throttllem_env.training.study.contest import ContestCase

PHYSICS_ERROR = 0.15
SLOW_SWITCH = Switching(median_s=0.2, p99_s=0.2)
STALE_S = 5.0
FOREIGN = "llama3-8b-h100"
"""Another GPU and model than policies were trained for."""

SPIKE = (0.4, 0.5)
"""Where the load doubles: from here to there, as shares of the trace."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A way to deploy.

    Attributes:
        case: What is served.
        suffix: Wrappers that are put around agents, such as `+stale:delay_s=5`.
    """

    case: ContestCase
    suffix: str = ""


def conditions(base: ContestCase, out: Path) -> list[Condition]:
    """All conditions around a case; files that they need are written.

    Args:
        base: What is served where nothing is wrong.
        out: Folder for scenarios and traces that are written.
    """
    scenario = load_scenario(base.scenario)
    slow = Deviation(decode_time=1 + PHYSICS_ERROR, prefill_time=1 + PHYSICS_ERROR)
    fast = Deviation(decode_time=1 - PHYSICS_ERROR, prefill_time=1 - PHYSICS_ERROR)
    hungry = Deviation(power=1 + PHYSICS_ERROR)
    calm = prepare_workload(base.trace, scenario, load=base.load, part=base.split).trace
    spiked = spike(calm)
    path = write_trace(spiked, out / "spike.parquet")
    # The calm part keeps its load.
    peak = spiked.peak_rate_rps() / scenario.rated_rps(scenario.largest_size)
    cases = [
        replace(base, name="as trained for"),
        replace(base, name="lengths wrong by 30 %", predictor="noisy-30"),
        replace(base, name="load doubles for a tenth of the time", trace=str(path), split="all", load=peak),
        *(
            replace(base, name=name, scenario=str(write_scenario(scenario, change, out / f"{file}.yaml")))
            for name, file, change in (
                ("15 % slower than believed", "slow", {"deviation": slow}),
                ("15 % faster than believed", "fast", {"deviation": fast}),
                ("15 % more power than believed", "hungry", {"deviation": hungry}),
                ("200 ms for a change of clock", "switch", {"switching": SLOW_SWITCH}),
            )
        ),
    ]
    cases.append(replace(base, name=f"another GPU and model: {FOREIGN}", scenario=FOREIGN))
    stale = Condition(replace(base, name=f"telemetry {STALE_S:g} s old"), f"+stale:delay_s={STALE_S:g}")
    return [*(Condition(case) for case in cases), stale]


def spike(trace: Trace) -> Trace:
    """A stretch of a trace with every request twice.

    Args:
        trace: The trace.
    """
    low, high = (share * trace.duration_s for share in SPIKE)
    within = np.flatnonzero((trace.arrival_s >= low) & (trace.arrival_s < high))
    rows = np.sort(np.concatenate([np.arange(len(trace)), within]))
    columns = trace.arrival_s[rows], trace.prompt_tokens[rows], trace.output_tokens[rows]
    return Trace(*columns, f"{trace.name} with a spike", trace.duration_s)


def write_trace(trace: Trace, path: Path) -> Path:
    """Write a trace so that `load_trace` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(trace, path)
    return path


def write_scenario(scenario: Scenario, change: Mapping[str, object], path: Path) -> Path:
    """Write a scenario with something changed."""
    import yaml

    path.parent.mkdir(parents=True, exist_ok=True)
    data = scenario.model_copy(update=change).model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def watched(agents: Sequence[str], suffix: str) -> dict[str, str]:
    """Agents in a condition, without and with the SLO watchdog, and what tables call them."""
    plain = {f"{agent}{suffix}": agent for agent in agents}
    return plain | {f"{agent}+watchdog{suffix}": f"{agent}+watchdog" for agent in agents}
