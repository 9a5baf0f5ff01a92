"""Makes observations with the compiled features: what they need of telemetry, and memory to make them in."""

import numpy as np

from throttllem_env.envs.kernels.inputs import NODE, Constants, Scratch, new_scratch
from throttllem_env.envs.kernels.observe import observe
from throttllem_env.envs.view import HORIZONS_S, Scales
from throttllem_env.prediction import Forecaster
from throttllem_env.prediction.feasibility import PREFILL_CODES
from throttllem_env.prediction.outlook import columns_of
from throttllem_env.slo import deadlines_passed
from throttllem_env.types import InstanceState, ObservationArray, RequestTable, Telemetry

FIRST_REQUESTS, FIRST_PIECES = 512, 2048


def constants_of(forecaster: Forecaster, scales: Scales) -> Constants:
    """What does not change in an environment."""
    scenario, slo = forecaster.scenario, forecaster.slo
    engine, clocks_mhz = scenario.engine, scenario.gpu_spec.clocks_mhz
    return Constants(
        top_mhz=float(scenario.top_mhz),
        largest_size=float(scenario.largest_size),
        seats=engine.max_num_seqs,
        token_budget=engine.max_num_batched_tokens,
        block_size=engine.block_size,
        rated_rps=float(scenario.rated_rps(scenario.largest_size)),
        backlog_tokens=float(scales.backlog_tokens),
        token_rate=float(scales.token_rate),
        prompt_token_rate=float(scales.prompt_token_rate),
        max_power_w=float(scales.max_power_w),
        warm_up_s=float(scales.warm_up_s),
        e2e_s=float(slo.e2e_s),
        tbt_s=float(slo.tbt_s),
        margin=float(forecaster.margin),
        prefill=PREFILL_CODES[forecaster.prefill],
        clocks_mhz=np.array(clocks_mhz, np.int64),
        horizons_s=np.array(HORIZONS_S),
    )


class Observer:
    """Observes telemetry; holds memory, but nothing of what it saw that would make a difference."""

    def __init__(self, forecaster: Forecaster, scales: Scales, bounds: ObservationArray) -> None:
        """Prepare for a scenario.

        Args:
            forecaster: Makes the projection.
            scales: What features are divided by.
            bounds: float32[2, features], lower and upper; their number says whether projections are wanted.
        """
        self._forecaster, self._bounds = forecaster, bounds
        self._constants = constants_of(forecaster, scales)
        self._nodes = np.zeros(1, NODE)
        self._scratch = self._new_scratch(FIRST_REQUESTS, FIRST_PIECES)

    def _new_scratch(self, requests: int, pieces: int) -> Scratch:
        engine = self._forecaster.scenario.engine
        return new_scratch(requests, pieces, engine.block_size, engine.max_model_len, len(HORIZONS_S))

    def observe(self, telemetry: Telemetry) -> ObservationArray:
        """float32[features], clipped to the bounds."""
        row = np.empty(self._bounds.shape[1], np.float32)
        active = telemetry.active
        table = RequestTable.concatenate([active.running, telemetry.waiting])
        n = len(table)
        if n > len(self._scratch.predicted):
            self._scratch = self._new_scratch(2 * n, len(self._scratch.future.pieces))
        self._scratch.predicted[:n] = self._forecaster.lengths.predict(table)
        self._nodes[0] = self._node(telemetry)
        columns, tables = columns_of(table), self._forecaster.tables(active.size)
        while True:
            needed = observe(
                columns,
                len(active.running),
                n,
                self._nodes,
                0,
                self._constants,
                tables,
                self._scratch,
                self._bounds,
                row,
            )
            if not needed:
                return row
            self._scratch = self._with_pieces(2 * needed, n)

    def _with_pieces(self, pieces: int, n: int) -> Scratch:
        """More room for pieces; the predicted lengths stay."""
        larger = self._new_scratch(len(self._scratch.predicted), pieces)
        larger.predicted[:n] = self._scratch.predicted[:n]
        return larger

    def _node(self, telemetry: Telemetry) -> tuple[float, ...]:
        """The fields of a NODE."""
        t, active, recent = telemetry, telemetry.active, telemetry.recent
        warming = t.in_state(InstanceState.WARMING)
        values = {
            "time_s": t.time_s,
            "elapsed_s": max(t.time_s - t.previous_s, 1e-9),
            "frequency_mhz": active.frequency_mhz,
            "target_mhz": active.target_mhz,
            "size_slot": self._forecaster.scenario.sizes.index(active.size),
            "kv_used": active.kv_blocks_used,
            "kv_total": active.kv_blocks_total,
            "warming_size": warming.size if warming else 0,
            "warming_since_s": warming.since_s if warming else 0.0,
            "draining": t.in_state(InstanceState.DRAINING) is not None,
            "window_s": recent.window_s,
            "window_requests": recent.requests,
            "window_prompt_tokens": recent.prompt_tokens,
            "power_w": t.power_w,
            "tokens": t.tokens_generated,
            "tbt_s": t.tbt_mean_s,
            "missed": deadlines_passed(t, t.previous_s, self._forecaster.slo.e2e_s),
            "guess": self._nodes[0]["guess"],  # what was found last
        }
        return tuple(values[name] for name in NODE.names or ())
