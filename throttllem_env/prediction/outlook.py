"""From telemetry to an outlook: lengths, projection and deadlines in one step."""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from throttllem_env.prediction.feasibility import PREFILL_CODES, Outlook, PrefillModel
from throttllem_env.prediction.ips.control import iteration_time
from throttllem_env.prediction.iteration_time import IterationTimePredictor
from throttllem_env.prediction.kernels.columns import EngineLimits, Question, Requests, TimeTables
from throttllem_env.prediction.kernels.future import Future, build, new_future
from throttllem_env.prediction.kernels.lengths import remaining_deadlines
from throttllem_env.prediction.lengths import LengthPredictor
from throttllem_env.scenario import EngineConfig, Scenario
from throttllem_env.slo import Slo
from throttllem_env.types import FloatArray, IntArray, RequestTable, Telemetry


@dataclass(frozen=True, slots=True)
class Forecaster:
    """Everything that turns telemetry into an outlook; holds no state of its own.

    Attributes:
        scenario: Engine settings and clocks.
        slo: Targets to hold.
        lengths: Predicts output lengths.
        predictor: M.
        prefill: Which prefill counts.
        margin: Share of the time left before a deadline that is kept in reserve.
    """

    scenario: Scenario
    slo: Slo
    lengths: LengthPredictor
    predictor: IterationTimePredictor
    prefill: PrefillModel = "expected"
    margin: float = 0.0

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        slo: Slo,
        lengths: LengthPredictor,
        prefill: PrefillModel = "expected",
        margin: float = 0.0,
    ) -> "Forecaster":
        """A forecaster with the scenario's M (`Scenario.ips_model`)."""
        return cls(scenario, slo, lengths, iteration_time(scenario), prefill, margin)

    def outlook(self, telemetry: Telemetry, waiting: RequestTable | None = None) -> Outlook:
        """Project the active instance.

        Args:
            telemetry: The state now.
            waiting: Requests taken to be next in line; default: those that wait now.

        Returns:
            The projection and what to hold it against.
        """
        case = self.case(telemetry, telemetry.waiting if waiting is None else waiting)
        future = projected(case.columns, case.running, case.predicted, case.limits, case.tables)
        return Outlook(
            future=future,
            tables=case.tables,
            clocks=clock_indices(self.scenario.gpu_spec.clocks_mhz),
            size=telemetry.active.size,
            fits=bool(future.sweep[0]["highest_kv"] <= case.limits.kv_blocks),
            deadline_s=case.deadline_s,
            lost=bool(case.columns.lost.any()),
            question=case.question,
        )

    def case(self, telemetry: Telemetry, waiting: RequestTable) -> "Case":
        """What kernels need to project the active instance.

        Args:
            telemetry: The state now.
            waiting: Requests taken to be next in line.
        """
        instance = telemetry.active
        table = RequestTable.concatenate([instance.running, waiting])
        columns = columns_of(table)
        return Case(
            columns,
            len(instance.running),
            self.lengths.predict(table),
            self._deadlines_s(columns, telemetry.time_s),
            engine_limits(self.scenario.engine, instance.kv_blocks_total),
            self.tables(instance.size),
            self._question(telemetry),
        )

    def _question(self, telemetry: Telemetry) -> Question:
        recent = telemetry.recent
        mean_prompt_tokens = recent.prompt_tokens / max(recent.requests, 1)
        code = PREFILL_CODES[self.prefill]
        return Question(telemetry.time_s, code, recent.prompt_token_rate, mean_prompt_tokens, self.slo.tbt_s)

    def tables(self, size: int) -> TimeTables:
        """Iteration times of a size, as kernels read them."""
        return self.predictor.tables(size, self.scenario.gpu_spec.clocks_mhz)

    def _deadlines_s(self, columns: Requests, now_s: float) -> FloatArray:
        n = len(columns.arrival_s)
        deadline_s = np.empty(n)
        remaining_deadlines(columns, n, self.slo.e2e_s, now_s, self.margin, deadline_s)
        return deadline_s


class Case(NamedTuple):
    """A question to the kernels in full; see `kernels.future.build` and `kernels.admission.admit`."""

    columns: Requests
    running: int
    predicted: IntArray
    deadline_s: FloatArray
    limits: EngineLimits
    tables: TimeTables
    question: Question


def columns_of(table: RequestTable) -> Requests:
    """The columns of a table, as kernels read them."""
    return Requests(*(getattr(table, name) for name in Requests._fields))


def engine_limits(engine: EngineConfig, kv_blocks: int) -> EngineLimits:
    """Limits of an instance with so many KV blocks."""
    return EngineLimits(engine.block_size, engine.max_num_batched_tokens, engine.max_num_seqs, kv_blocks)


@cache
def clock_indices(clocks_mhz: tuple[int, ...]) -> dict[int, int]:
    """Index of each clock, by MHz."""
    return {mhz: index for index, mhz in enumerate(clocks_mhz)}


def projected(
    columns: Requests,
    running: int,
    predicted: IntArray,
    limits: EngineLimits,
    tables: TimeTables,
) -> Future:
    """Build a future with as much memory as it takes.

    Args:
        columns: Those running, then those waiting.
        running: How many run.
        predicted: int64[n], predicted output lengths.
        limits: Limits of the instance.
        tables: Iteration times of its size.
    """
    n, longest_tokens = len(predicted), int(predicted.max(initial=1))
    pieces = 64 + 4 * n
    while True:
        future = new_future(n, pieces, limits.block_size, longest_tokens)
        if build(columns, running, n, predicted, limits, tables, future):
            return future
        pieces = int(future.sweep[0]["pieces"])
