"""Wrappers of vector environments: what is counted, what lateness costs, whose choice is moved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from throttllem_env.controller import Assignment, Controller
from throttllem_env.envs.residual import Moves, extended, possible, require_full_grid, with_choice
from throttllem_env.envs.sb3 import ServingVecEnv
from throttllem_env.types import Action, ObservationArray


@dataclass(slots=True)
class Counts:
    """What happened since someone last looked, over all environments.

    Attributes:
        steps: Steps of single environments.
        energy_j: Joules.
        elapsed_s: Their simulated time, seconds.
        late: Deadlines that passed unmet, plus rejections.
        arrived: Requests that arrived.
        reward: Sum of rewards.
    """

    steps: int = 0
    energy_j: float = 0.0
    elapsed_s: float = 0.0
    late: float = 0.0
    arrived: float = 0.0
    reward: float = 0.0

    @property
    def late_share(self) -> float:
        """Late requests per request that arrived."""
        return self.late / max(self.arrived, 1.0)


class Meter(VecEnvWrapper):
    """Counts; changes nothing.

    Attributes:
        counts: Since the last `read`.
    """

    def __init__(self, venv: VecEnv) -> None:
        """Begin at nothing."""
        super().__init__(venv)
        self.counts = Counts()

    def reset(self) -> Any:
        """See `VecEnv`."""
        return self.venv.reset()

    def step_wait(self) -> Any:
        """See `VecEnv`."""
        observations, rewards, over, infos = self.venv.step_wait()
        counts = self.counts
        counts.steps += len(infos)
        counts.reward += float(np.sum(rewards, dtype=np.float64))
        for info in infos:
            counts.energy_j += info["energy_j"]
            counts.elapsed_s += info["elapsed_s"]
            counts.late += info["cost"]
            counts.arrived += info["arrived"]
        return observations, rewards, over, infos

    def read(self) -> Counts:
        """What was counted, and begin anew."""
        counts, self.counts = self.counts, Counts()
        return counts


class PricedLateness(VecEnvWrapper):
    """Takes a price off the reward for every late request; the environment's own weight of them is 0.

    Attributes:
        price: Reward for a second's worth of late requests at the rated load, as `violation_weight`.
    """

    def __init__(self, venv: VecEnv, price: float, rated_rps: float) -> None:
        """Set the price.

        Args:
            venv: Made with `violation_weight=0`.
            price: See above.
            rated_rps: Rated load of the largest size, requests per second.
        """
        super().__init__(venv)
        self.price, self._rated_rps = price, rated_rps

    def reset(self) -> Any:
        """See `VecEnv`."""
        return self.venv.reset()

    def step_wait(self) -> Any:
        """See `VecEnv`."""
        observations, rewards, over, infos = self.venv.step_wait()
        late = np.array([info["cost"] for info in infos], np.float64)
        return observations, (rewards - self.price * late / self._rated_rps).astype(np.float32), over, infos


class ResidualVecEnv(VecEnvWrapper):
    """Actions as moves around a reference's choice; see `throttllem_env.envs.residual`.

    Attributes:
        moves: What may be done to the choice.
    """

    def __init__(
        self, venv: ServingVecEnv, make_reference: Callable[[], Controller], moves: Moves | None = None
    ) -> None:
        """Wrap.

        Args:
            venv: Made with `clock_levels="full"` and actions `multi-discrete`.
            make_reference: Makes a reference for each environment.
            moves: What may be done to its choice.

        Raises:
            OptionError: The environments do not offer all clocks, or see no single vector.
        """
        setup = venv.envs.setups[0]
        require_full_grid(setup.options.actions, setup.options.clock_levels)
        self.moves, self._serving = moves or Moves(), venv.envs
        space = extended(venv.observation_space)
        super().__init__(venv, observation_space=space, action_space=self.moves.space)
        self._references = [make_reference() for _ in range(venv.num_envs)]
        self._choices = [Action(0, 0)] * venv.num_envs

    def reset(self) -> Any:
        """Begin an episode everywhere, for the references, too."""
        observations: Any = self.venv.reset()
        for index in range(self.num_envs):
            self._begin(index)
        return self._seen(observations)

    def _begin(self, index: int) -> None:
        setup, episode = self._serving.setups[index], self._serving.episode(index)
        assignment = Assignment(setup.scenario, setup.slo, episode.forecaster.lengths, episode.seed)
        self._references[index].reset(assignment)

    def step_async(self, actions: Any) -> None:
        """Move the references' choices."""
        self.venv.step_async(np.array([self._moved(i, action) for i, action in enumerate(actions)]))

    def _moved(self, index: int, action: Any) -> tuple[int, int]:
        setup = self._serving.setups[index]
        wanted = self.moves.moved(self._choices[index], action, setup.scenario)
        wanted = possible(wanted, self._serving.telemetry(index), setup.scenario)
        return setup.grid.clocks_mhz.index(wanted.frequency_mhz), setup.grid.sizes.index(wanted.size)

    def step_wait(self) -> Any:
        """See `VecEnv`."""
        found: Any = self.venv.step_wait()
        observations, rewards, over, infos = found
        for index in np.flatnonzero(over).tolist():
            last = infos[index]["terminal_observation"]
            # What the reference would have chosen there is not known: its telemetry is gone. Its last choice.
            scenario = self._serving.setups[index].scenario
            infos[index]["terminal_observation"] = with_choice(last, self._choices[index], scenario)
            self._begin(index)
        return self._seen(observations), rewards, over, infos

    def _seen(self, observations: ObservationArray) -> ObservationArray:
        rows = []
        for index, row in enumerate(observations):
            self._choices[index] = self._references[index].act(row, self._serving.telemetry(index))
            rows.append(with_choice(row, self._choices[index], self._serving.setups[index].scenario))
        return np.array(rows)
