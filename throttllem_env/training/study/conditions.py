"""What can be wrong when an agent is deployed: each condition is a case of its own, watched over or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np

from throttllem_env.scenario import Deviation, Scenario, Switching, load_scenario
from throttllem_env.serving.workload import prepare_workload
from throttllem_env.traces import Split, Trace, load_trace
from throttllem_env.traces.parquet import write_parquet
from throttllem_env.traces.splits import block_spans
from throttllem_env.training.study.contest import ContestCase

PHYSICS_ERROR = 0.15
LARGE_PHYSICS_ERROR = 0.5
SLOW_SWITCH = Switching(median_s=0.2, p99_s=0.2)
STALE_S, STALER_S, STALEST_S = 5.0, 8.0, 30.0
"""The second is just within what the watchdog takes for the present, the third is not."""

LONGER = 2
"""By this factor answers are longer than all that length predictors have learned from."""

LONGER_LOAD, FULL_LOAD = 0.5, 1.0
BURSTY = "bursty"
FOREIGN = "llama3-8b-h100"
"""Another GPU and model than policies were trained for."""

SPIKE = (0.4, 0.5)
"""Where the load doubles: from here to there, as shares of the trace."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A way to deploy.

    Attributes:
        case: What is served.
        suffix: Wrappers that are put around agents, such as `+stale:delay_s=5`, outside of a watchdog.
        within: Wrappers that are put around agents inside of a watchdog, which does not suffer from them.
    """

    case: ContestCase
    suffix: str = ""
    within: str = ""


def conditions(base: ContestCase, out: Path) -> list[Condition]:
    """All conditions around a case; files that they need are written.

    Args:
        base: What is served where nothing is wrong.
        out: Folder for scenarios and traces that are written.
    """
    return [*single_faults(base, out), *hard_conditions(base, out)]


def single_faults(base: ContestCase, out: Path) -> list[Condition]:
    """One thing wrong at a time, by as much as is to be expected.

    Args:
        base: What is served where nothing is wrong.
        out: Folder for scenarios and traces that are written.
    """
    scenario = load_scenario(base.scenario)
    hungry = Deviation(power=1 + PHYSICS_ERROR)
    cases = [
        replace(base, name="as trained for"),
        replace(base, name="lengths wrong by 30 %", predictor="noisy-30"),
        with_spike(replace(base, name="load doubles for a tenth of the time"), out),
        *(
            replace(base, name=name, scenario=str(write_scenario(scenario, change, out / f"{file}.yaml")))
            for name, file, change in (
                ("15 % slower than believed", "slow", {"deviation": slower(PHYSICS_ERROR)}),
                ("15 % faster than believed", "fast", {"deviation": slower(-PHYSICS_ERROR)}),
                ("15 % more power than believed", "hungry", {"deviation": hungry}),
                ("200 ms for a change of clock", "switch", {"switching": SLOW_SWITCH}),
            )
        ),
    ]
    cases.append(replace(base, name=f"another GPU and model: {FOREIGN}", scenario=FOREIGN))
    old = Condition(replace(base, name=f"telemetry {STALE_S:g} s old"), stale(STALE_S))
    return [*(Condition(case) for case in cases), old]


def hard_conditions(base: ContestCase, out: Path) -> list[Condition]:
    """More than an agent can be expected to stand: several things wrong at once, or one by far.

    Args:
        base: What is served where nothing is wrong.
        out: Folder for scenarios and traces that are written.
    """
    scenario = load_scenario(base.scenario)
    deviations = {"slow": slower(PHYSICS_ERROR), "very-slow": slower(LARGE_PHYSICS_ERROR)}
    slow, very_slow = (
        str(write_scenario(scenario, {"deviation": deviation}, out / f"{file}.yaml"))
        for file, deviation in deviations.items()
    )
    answers = f"answers {LONGER} times as long as lengths were learned from, load {LONGER_LOAD:g}"
    longer = write_trace(with_longer_answers(load_trace(base.trace), base.split), out / "longer.parquet")
    doubled = with_spike(replace(base, scenario=slow), out)
    full = with_spike(replace(base, scenario=slow, load=FULL_LOAD), out)
    old = f"telemetry {STALEST_S:g} s old"
    several = f"15 % slower, load doubles, telemetry {STALER_S:g} s old"
    return [
        Condition(replace(base, name="50 % slower than believed", scenario=very_slow)),
        Condition(replace(base, name=answers, trace=str(longer), load=LONGER_LOAD)),
        Condition(replace(base, name=old), stale(STALEST_S)),
        Condition(replace(base, name=f"{old}, the watchdog's not"), within=stale(STALEST_S)),
        Condition(replace(doubled, name=several), stale(STALER_S)),
        Condition(replace(full, name=f"15 % slower, load {FULL_LOAD:g} doubles")),
        Condition(
            replace(
                base,
                name=f"15 % slower, {BURSTY}, load {FULL_LOAD:g}",
                scenario=slow,
                trace=BURSTY,
                load=FULL_LOAD,
            )
        ),
    ]


def slower(error: float) -> Deviation:
    """Hardware whose iterations take longer than forecast, by this share."""
    return Deviation(decode_time=1 + error, prefill_time=1 + error)


def stale(delay_s: float) -> str:
    """The wrapper that shows the past."""
    return f"+stale:delay_s={delay_s:g}"


def with_spike(case: ContestCase, out: Path) -> ContestCase:
    """The case with a trace whose load doubles for a while; the rest keeps its load.

    Args:
        case: A case.
        out: Folder for the trace.
    """
    scenario = load_scenario(case.scenario)
    spiked = spike(prepare_workload(case.trace, scenario, load=case.load, part=case.split).trace)
    path = write_trace(spiked, out / f"spike-{case.load:g}.parquet")
    peak = spiked.peak_rate_rps() / scenario.rated_rps(scenario.largest_size)
    return replace(case, trace=str(path), split="all", load=peak)


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


def with_longer_answers(trace: Trace, split: str) -> Trace:
    """A trace whose answers are longer in the blocks of a split, and there alone.

    Args:
        trace: The trace.
        split: Which blocks.
    """
    factor = np.ones(len(trace), np.int64)
    for start_s, end_s in block_spans(trace.duration_s, cast(Split, split)):
        factor[(trace.arrival_s >= start_s) & (trace.arrival_s <= end_s)] = LONGER
    columns = trace.arrival_s, trace.prompt_tokens, trace.output_tokens * factor
    return Trace(*columns, f"{trace.name} with longer answers", trace.duration_s)


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


def watched(agents: Sequence[str], condition: Condition) -> dict[str, str]:
    """Agents in a condition, without and with the SLO watchdog, and what tables call them."""
    within, suffix = condition.within, condition.suffix
    pairs = [(f"{agent}{within}", agent) for agent in agents]
    return {
        f"{inner}{guard}{suffix}": f"{agent}{guard}" for inner, agent in pairs for guard in ("", "+watchdog")
    }
