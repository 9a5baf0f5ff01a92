"""Which requests an episode serves, and everything else that is drawn at its start."""

from dataclasses import dataclass

import numpy as np

from throttllem_env.envs.options import EnvOptions, OptionError
from throttllem_env.prediction import Forecaster, LengthPredictor, make_length_predictor
from throttllem_env.prediction.lengths import OracleLengths
from throttllem_env.scenario import Scenario
from throttllem_env.serving.workload import is_synthetic, prepare_workload
from throttllem_env.slo import Slo
from throttllem_env.traces import Trace

FIRST_SEED = 2_000_000
"""Synthetic traces have seeds from here on: none that an evaluation uses, or that `learned` learns from."""

HOURS = 64
"""Synthetic traces that episodes are cut from; drawing one takes longer than serving an episode of it."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What is drawn at a reset.

    Attributes:
        trace: Requests of run-in and episode.
        forecaster: Projects with the episode's length predictor.
        seed: Seeds the backend.
    """

    trace: Trace
    forecaster: Forecaster
    seed: int


class EpisodeSource:
    """Prepares the workload once and cuts episodes from it, at random.

    Attributes:
        forecaster: A forecaster for all that does not depend on the episode.
    """

    def __init__(self, options: EnvOptions, scenario: Scenario, slo: Slo) -> None:
        """Load the trace, scale it to the load and fit the length predictor.

        Args:
            options: Say which trace, load and predictor.
            scenario: What is served on what.
            slo: The targets.

        Raises:
            OptionError: The trace, or the part of it that is served, holds no request.
        """
        self._options, self._scenario, self._slo = options, scenario, slo
        self._workload = prepare_workload(options.trace, scenario, load=options.load, part=options.part)
        if not len(self._workload.trace):
            raise OptionError(f"part = {options.part!r}: {options.trace} has no requests there; take 'all'")
        self._synthetic = is_synthetic(options.trace)
        self._drawn: dict[int, Trace] = {}
        self._length_s = options.run_in_s + options.episode_s
        self.forecaster = Forecaster.of(scenario, slo, self._predictor(self._workload.trace, 0))

    def draw(self, rng: np.random.Generator) -> Episode:
        """Draw an episode; all randomness of an environment passes through here.

        A trace that is shorter than the episode is served whole.

        Args:
            rng: The environment's generator.
        """
        whole = self._whole(rng)
        spare_s = max(whole.duration_s - self._length_s, 0.0)
        start_s = float(rng.uniform(0.0, spare_s))
        seed = int(rng.integers(2**31))
        # A window leaves out an arrival at its very end, which a trace served whole keeps.
        trace = whole.window(start_s, start_s + self._length_s) if spare_s else whole
        return Episode(trace, self._forecaster(trace, seed), seed)

    def _whole(self, rng: np.random.Generator) -> Trace:
        """The trace to cut from: if it is synthetic, one of `HOURS`, each drawn when it is first needed."""
        if not self._synthetic:
            return self._workload.trace
        number = int(rng.integers(HOURS))
        if number not in self._drawn:
            self._drawn[number] = self._draw_whole(FIRST_SEED + number)
        return self._drawn[number]

    def _draw_whole(self, seed: int) -> Trace:
        o, past = self._options, self._workload.past
        return prepare_workload(o.trace, self._scenario, load=o.load, part=o.part, seed=seed, past=past).trace

    def _forecaster(self, trace: Trace, seed: int) -> Forecaster:
        """Predictors that look at true lengths need those of the episode's own requests."""
        if not isinstance(self.forecaster.lengths, OracleLengths):
            return self.forecaster
        return Forecaster.of(self._scenario, self._slo, self._predictor(trace, seed))

    def _predictor(self, trace: Trace, seed: int) -> LengthPredictor:
        cap_tokens, limit = self._scenario.output_cap_tokens, self._scenario.engine.max_model_len
        spec, past = self._options.length_predictor, self._workload.past
        return make_length_predictor(spec, trace, past, seed, cap_tokens, limit)
