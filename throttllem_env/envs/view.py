"""One telemetry seen through a forecaster: every quantity that features are made of, computed at most once.

Nothing here reads a true output length: what is known of the future comes from the forecaster's length
predictor. This is the plain form of the projected features: `Observation.flat` takes the compiled one.
"""

from functools import cached_property

import numpy as np

from throttllem_env.prediction import Forecaster, Verdict
from throttllem_env.prediction.reference import (
    PlainOutlook,
    judge,
    look_ahead,
    lowest_feasible_mhz,
    plain_outlook,
)
from throttllem_env.slo import deadlines_passed
from throttllem_env.types import FloatArray, InstanceState, InstanceTelemetry, IntArray, Telemetry

HORIZONS_S = (1.0, 2.0, 5.0, 10.0, 20.0)
"""How far ahead batch and KV are shown."""

BACKLOG_ITERATIONS = 16
"""Prompt tokens count relative to what this many full iterations can prefill."""


class Scales:
    """Constants of a scenario that features are divided by.

    Attributes:
        max_power_w: Power limits of all GPUs of the node.
        backlog_tokens: Prompt tokens that 16 full iterations prefill.
        token_rate: Output tokens per second of the largest size, full, at the top clock, with short contexts.
        prompt_token_rate: Prompt tokens per second of the largest size when it does nothing else.
        warm_up_s: Longest warm-up (1 where there is none).
    """

    def __init__(self, forecaster: Forecaster) -> None:
        """Compute them once."""
        scenario, predictor = forecaster.scenario, forecaster.predictor
        engine, size, top_mhz = scenario.engine, scenario.largest_size, scenario.top_mhz
        full = np.array([engine.max_num_seqs])
        chunk = np.array([float(engine.max_num_batched_tokens)])
        self.max_power_w = scenario.gpus_per_node * scenario.gpu_spec.power_limit_w
        self.backlog_tokens = BACKLOG_ITERATIONS * engine.max_num_batched_tokens
        self.token_rate = engine.max_num_seqs / float(predictor.decode_s(size, full, full, top_mhz)[0])
        self.prompt_token_rate = float((chunk / predictor.prefill_s(size, chunk, chunk**2, top_mhz))[0])
        self.warm_up_s = scenario.warm_up.max_s or 1.0


class View:
    """One telemetry, and what follows from it; everything is computed at most once.

    Attributes:
        telemetry: The state now.
        active: The active instance.
        scenario: What is served on what.
        scales: Its constants.
    """

    def __init__(self, telemetry: Telemetry, forecaster: Forecaster, scales: Scales) -> None:
        """Look at a telemetry."""
        self.telemetry, self.active = telemetry, telemetry.active
        self.scenario, self.scales = forecaster.scenario, scales
        self._forecaster = forecaster

    @property
    def top_mhz(self) -> int:
        """The top clock."""
        return self.scenario.top_mhz

    @property
    def seats(self) -> int:
        """Requests that can run at once."""
        return self.scenario.engine.max_num_seqs

    @property
    def rated_rps(self) -> float:
        """Rated load of the largest size."""
        return self.scenario.rated_rps(self.scenario.largest_size)

    @cached_property
    def warming(self) -> InstanceTelemetry | None:
        """The instance that warms in the shadow."""
        return self.telemetry.in_state(InstanceState.WARMING)

    @property
    def draining(self) -> bool:
        """Whether an instance drains."""
        return self.telemetry.in_state(InstanceState.DRAINING) is not None

    @property
    def warming_size(self) -> float:
        """Size of the warming instance relative to the largest; 0 without one."""
        return self.warming.size / self.scenario.largest_size if self.warming else 0.0

    @property
    def warming_progress(self) -> float:
        """Time in warm-up relative to the longest; 0 when nothing warms."""
        return (self.telemetry.time_s - self.warming.since_s) / self.scales.warm_up_s if self.warming else 0.0

    @cached_property
    def elapsed_s(self) -> float:
        """Time since the previous telemetry, never 0."""
        return max(self.telemetry.time_s - self.telemetry.previous_s, 1e-9)

    @cached_property
    def pending_tokens(self) -> IntArray:
        """int64[running], known tokens without KV: 1 where a request decodes."""
        running = self.active.running
        return running.prompt_tokens + running.generated_tokens - running.computed_tokens

    @cached_property
    def queued_tokens(self) -> int:
        """Known tokens of the requests that wait."""
        waiting = self.telemetry.waiting
        return int(waiting.prompt_tokens.sum() + waiting.generated_tokens.sum())

    @property
    def prefilling(self) -> int:
        """Running requests that are still being prefilled."""
        return int((self.pending_tokens > 1).sum())

    @property
    def backlog_tokens(self) -> int:
        """Tokens to prefill, of running and waiting requests."""
        return self.queued_tokens + int(self.pending_tokens[self.pending_tokens > 1].sum())

    @property
    def token_rate(self) -> float:
        """Output tokens per second since the previous telemetry."""
        return self.telemetry.tokens_generated / self.elapsed_s

    @property
    def missed_share(self) -> float:
        """Deadlines that passed since the previous telemetry, relative to the rated load."""
        missed = deadlines_passed(self.telemetry, self.telemetry.previous_s, self._forecaster.slo.e2e_s)
        return missed / (self.rated_rps * self.elapsed_s)

    @cached_property
    def outlook(self) -> PlainOutlook:
        """The one projection that all projected features share."""
        return plain_outlook(self._forecaster, self.telemetry)

    @cached_property
    def at_top(self) -> Verdict:
        """How the SLOs fare at the top clock."""
        return judge(self.outlook, self._forecaster.predictor, self.top_mhz)

    @cached_property
    def at_present(self) -> Verdict:
        """How they fare at the clock that is set."""
        return judge(self.outlook, self._forecaster.predictor, self.active.target_mhz)

    @cached_property
    def lowest(self) -> tuple[int, bool]:
        """The lowest feasible clock, and whether there is one."""
        clocks_mhz = self.scenario.gpu_spec.clocks_mhz
        return lowest_feasible_mhz(self.outlook, self._forecaster.predictor, clocks_mhz)

    @cached_property
    def ahead(self) -> tuple[FloatArray, FloatArray]:
        """float64[5] batch and float64[5] KV blocks at the horizons, at the clock that is set."""
        mhz = self.active.target_mhz
        return look_ahead(self.outlook, self._forecaster.predictor, mhz, np.array(HORIZONS_S))

    @property
    def missing_share(self) -> float:
        """Share of unfinished requests that will miss their deadline even at the top clock."""
        late = self.at_top.finish_s > self.outlook.deadline_s
        return float(late.mean()) if len(late) else 0.0

    def relative_slack(self, verdict: Verdict) -> float:
        """Least slack relative to the E2E SLO; 1 where nothing has a deadline."""
        return min(verdict.slack_s / self._forecaster.slo.e2e_s, 1.0)

    def relative_tbt(self, tbt_s: float) -> float:
        """A time between tokens relative to its SLO."""
        return tbt_s / self._forecaster.slo.tbt_s
