"""Rated loads, the E2E SLO and the reference power of a scenario (docs/design.md, Contracts).

Computed by simulation at the top clock and frozen in the scenario's YAML, so that every later run is
held against the same targets.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from throttllem_env.evaluation.metrics import percentile
from throttllem_env.evaluation.sweeps.workers import run_parallel
from throttllem_env.scenario import RatedLoad, Scenario, SloConfig
from throttllem_env.serving import RunRecords, make_backend
from throttllem_env.serving.workload import fitting_trace, past_requests
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace, poisson_arrivals
from throttllem_env.types import Action, FloatArray

GRID_RPS = 0.05
HIGHEST_RPS = 50.0
SEEDS = 5
SLO_SCALES = (0.75, 1.5)
COARSE_S = 900.0
"""A first guess at a rated load comes from single trials of this length."""
MAX_PREEMPTED = 0.01
MAX_QUEUE_WAIT_P99_S = 1.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One simulated stretch at a constant rate, at the top clock.

    Attributes:
        wait_s: float64[n], arrival until first scheduled; infinite if never.
        e2e_s: float64[n], infinite if not completed.
        preempted: Requests preempted at least once.
        tbt_mean_s: Mean time between tokens, weighted by tokens.
        tokens: Output tokens.
        energy_j: Energy up to the trace's end.
        elapsed_s: Time of the first boundary there.
    """

    wait_s: FloatArray
    e2e_s: FloatArray
    preempted: int
    tbt_mean_s: float
    tokens: int
    energy_j: float
    elapsed_s: float


def poisson_trace(lengths: Trace, rate_rps: float, duration_s: float, seed: int) -> Trace:
    """Poisson arrivals with the joint prompt and output lengths of a trace.

    Args:
        lengths: Gives the lengths; drawn with replacement.
        rate_rps: Request rate.
        duration_s: Length.
        seed: Seeds arrivals and lengths.
    """
    rng = np.random.default_rng([seed, 0x7A7E])
    arrival_s = poisson_arrivals(rate_rps, duration_s, rng)
    chosen = rng.integers(0, len(lengths), len(arrival_s))
    return Trace(
        arrival_s, lengths.prompt_tokens[chosen], lengths.output_tokens[chosen], "poisson", duration_s
    )


def run_trial(scenario: Scenario, size: int, trace: Trace, seed: int) -> Trial:
    """Serve a trace at the top clock with one size, and give what is left some time to drain.

    Args:
        scenario: What is served on what; taken with `size` as its only size and vLLM's own admission.
        size: The size.
        trace: The requests.
        seed: Seeds the backend.
    """
    alone = scenario.model_copy(update={"sizes": (size,), "admission": "vllm"})
    backend = make_backend("simulator", alone)
    backend.reset(trace, seed)
    backend.apply(Action(scenario.top_mhz, size))
    telemetry = backend.advance(trace.duration_s)
    energy_j, elapsed_s = telemetry.energy_j, telemetry.time_s
    backend.advance(elapsed_s + 10 * scenario.drain_s)
    return _trial(backend.records(), energy_j, elapsed_s)


def _trial(records: RunRecords, energy_j: float, elapsed_s: float) -> Trial:
    r = records.requests
    preempted, tokens = int((r.preemptions > 0).sum()), int(records.tbt_tokens.sum())
    return Trial(r.wait_s, r.e2e_s, preempted, records.tbt_mean_s, tokens, energy_j, elapsed_s)


def sustains(trials: list[Trial], slo: Slo, *, e2e_too: bool) -> bool:
    """Whether a rate is within the rated load, all trials taken together.

    Args:
        trials: Trials at that rate.
        slo: The targets.
        e2e_too: Also hold the E2E SLO (smaller sizes).
    """
    wait_s = np.concatenate([t.wait_s for t in trials])
    e2e_s = np.concatenate([t.e2e_s for t in trials])
    tokens = np.array([t.tokens for t in trials])
    tbt_s = float(np.average([t.tbt_mean_s for t in trials], weights=np.maximum(tokens, 1)))
    calm = (
        tbt_s <= slo.tbt_s
        and sum(t.preempted for t in trials) <= MAX_PREEMPTED * len(wait_s)
        and np.isfinite(wait_s).all()
        and percentile(wait_s, 99) <= MAX_QUEUE_WAIT_P99_S
    )
    return bool(calm and (not e2e_too or np.mean(e2e_s <= slo.e2e_s) >= slo.attainment))


class Calibrator:
    """Searches rated loads; trials run in parallel and are kept."""

    def __init__(
        self,
        scenario: Scenario,
        lengths: Trace,
        *,
        duration_s: float = 3600.0,
        seeds: int = SEEDS,
        jobs: int = 1,
    ) -> None:
        """Prepare.

        Args:
            scenario: The scenario.
            lengths: Gives the request lengths; fitted to the model's limit.
            duration_s: Length of a trial, seconds.
            seeds: Trials per rate.
            jobs: Processes.
        """
        self._scenario, self._lengths = scenario, lengths
        self._duration_s, self._seeds, self._jobs = duration_s, seeds, jobs
        self._kept: dict[tuple[int, int], list[Trial]] = {}
        short = duration_s > COARSE_S
        self._coarse = Calibrator(scenario, lengths, duration_s=COARSE_S, seeds=1) if short else None

    def trials(self, size: int, step: int) -> list[Trial]:
        """Trials at `step` x 0.05 rps."""
        key = (size, step)
        if key not in self._kept:
            rate_rps = step * GRID_RPS
            traces = [
                poisson_trace(self._lengths, rate_rps, self._duration_s, seed) for seed in range(self._seeds)
            ]
            calls = [(self._scenario, size, trace, seed) for seed, trace in enumerate(traces)]
            self._kept[key] = run_parallel(run_trial, calls, self._jobs)
        return self._kept[key]

    def rated_step(self, size: int, slo: Slo, *, e2e_too: bool, highest: int) -> int:
        """Largest grid step that a size sustains: widen around a first guess, then bisect.

        Args:
            size: The size.
            slo: The targets.
            e2e_too: Also hold the E2E SLO.
            highest: Largest step to consider.

        Returns:
            The step, 0 if it sustains none.
        """

        def holds(step: int) -> bool:
            return sustains(self.trials(size, step), slo, e2e_too=e2e_too)

        good, bad = self._bracket(holds, self._guess(size, slo, e2e_too=e2e_too, highest=highest), highest)
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if holds(middle) else (good, middle)
        return good

    @staticmethod
    def _bracket(holds: Callable[[int], bool], guess: int, highest: int) -> tuple[int, int]:
        """A step that holds and one that does not: from the guess on, in strides that double."""
        width = 1
        if holds(guess):
            good = guess
            while good + width <= highest and holds(good + width):
                good, width = good + width, 2 * width
            return good, min(good + width, highest + 1)
        bad = guess
        while bad > width and not holds(bad - width):
            bad, width = bad - width, 2 * width
        return max(bad - width, 0), bad

    def _guess(self, size: int, slo: Slo, *, e2e_too: bool, highest: int) -> int:
        """A step near the rated load, from one short trial per step."""
        if self._coarse is None:
            return 1
        found = self._coarse.rated_step(size, slo, e2e_too=e2e_too, highest=highest)
        return min(max(found, 1), highest)


def freeze_scenario(
    scenario: Scenario,
    trace_spec: str,
    *,
    jobs: int,
    out: Path,
    progress: Callable[[str], None],
    duration_s: float = 3600.0,
    seeds: int = SEEDS,
    slo_scales: tuple[float, ...] = SLO_SCALES,
) -> Scenario:
    """Compute rated loads, E2E SLO and reference power, and write them into a scenario file.

    Args:
        scenario: The scenario; what it has of these figures is replaced and its version bumped.
        trace_spec: Trace whose train blocks give the request lengths.
        jobs: Processes.
        out: Where to write the YAML.
        progress: Told of each finding.
        duration_s: Length of a trial; shorter only for tests.
        seeds: Trials per rate; fewer only for tests.
        slo_scales: Further factors on the latency SLOs for which the smaller sizes' rated loads are found.

    Returns:
        The scenario as written.
    """
    recorded, _ = fitting_trace(trace_spec, scenario, seed=0)
    past = past_requests(trace_spec, recorded, scenario)
    search = Calibrator(scenario, past, duration_s=duration_s, seeds=seeds, jobs=jobs)
    largest, unbounded = scenario.largest_size, Slo(float("inf"), scenario.slo.tbt_s, scenario.slo.attainment)
    top = search.rated_step(largest, unbounded, e2e_too=False, highest=round(HIGHEST_RPS / GRID_RPS))
    if not top:
        raise ValueError(f"{scenario.name}: size {largest} does not sustain {GRID_RPS} rps; take more GPUs")
    at_rated = search.trials(largest, top)
    e2e_s = round(percentile(np.concatenate([t.e2e_s for t in at_rated]), 99), 2)
    power_w = round(sum(t.energy_j for t in at_rated) / sum(t.elapsed_s for t in at_rated), 1)
    progress(f"size {largest}: rated load {top * GRID_RPS:.2f} rps, E2E p99 {e2e_s} s, {power_w} W")
    slo = Slo(e2e_s, scenario.slo.tbt_s, scenario.slo.attainment)
    smaller = scenario.sizes[:-1]
    rated: dict[float, dict[int, float]] = {}
    for scale in (1.0, *(slo_scales if smaller else ())):
        found = {
            size: search.rated_step(size, slo.scaled(scale), e2e_too=True, highest=top) for size in smaller
        }
        rated[scale] = {size: round(step * GRID_RPS, 2) for size, step in found.items()}
        for size, rate_rps in rated[scale].items():
            progress(f"size {size}, SLO x {scale:g}: rated load {rate_rps:.2f} rps")
    frozen = scenario.model_copy(
        update={
            "version": scenario.version + scenario.frozen,
            "lengths": recorded.name,
            "slo": SloConfig(e2e_s=e2e_s, tbt_s=slo.tbt_s, attainment=slo.attainment),
            "rated": RatedLoad(
                requests_rps=rated.pop(1.0) | {largest: round(top * GRID_RPS, 2)},
                at_slo_scale=rated,
                reference_power_w=power_w,
                computed=_provenance(scenario, trace_spec, duration_s, seeds),
            ),
        }
    )
    write_scenario(frozen, out)
    return frozen


def _provenance(scenario: Scenario, trace_spec: str, duration_s: float, seeds: int) -> str:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    trace = Path(trace_spec).name
    return (
        f"{today}, `throttllem scenarios freeze {scenario.name} --trace {trace}`, "
        f"train blocks, {seeds} x {duration_s:g} s at the top clock"
    )


def write_scenario(scenario: Scenario, path: Path) -> None:
    """Write a scenario as YAML, leaving defaults out where they add nothing."""
    import yaml

    data = scenario.model_dump(exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False, width=100), encoding="utf-8")
