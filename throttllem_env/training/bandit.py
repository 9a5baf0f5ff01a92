"""`throttllem train --algo linucb`: a bandit that plays episode after episode, and keeps what it learned.

A bandit learns in every run anyway; one that was trained begins with what it knows. Segments are those of
the other learners: one begins with new episodes that depend on the seed and its number alone, and ends with a
look at held-out requests, so an interrupted training goes on as if it had not been.
"""

from typing import Any, Final

import gymnasium as gym
import numpy as np

from throttllem_env.agents.learned.bandit_file import bandit_controller, bandit_policy
from throttllem_env.agents.learned.policy_file import PolicyFile, read_policy
from throttllem_env.agents.linucb import LinUcb
from throttllem_env.controller import Assignment
from throttllem_env.envs import ServingEnv, register_envs
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import is_synthetic
from throttllem_env.training.about import about
from throttllem_env.training.events import Events
from throttllem_env.training.folder import BEST, CURVE, LAST, VALIDATIONS, TrainingFolder
from throttllem_env.training.hyperparams import load_hyperparams, replaced
from throttllem_env.training.report import Outcome, Reporter
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.validation import HeldOut, Validation

NOT_TAKEN: Final = ("lagrangian", "residual", "imitation", "curriculum", "randomisation", "reward_weights")
"""Settings that other learners take."""


def train(settings: TrainSettings, report: Reporter) -> Outcome:
    """Train; see `throttllem_env.training.algorithms.Trainer`.

    Args:
        settings: What to train.
        report: Told how far it is.

    Raises:
        ValueError: Settings that a bandit does not take.
    """
    training = _Training(settings, report)
    try:
        while not training.over:
            training.segment()
        return training.outcome()
    finally:
        training.close()


class _Training:
    """A training under way."""

    def __init__(self, settings: TrainSettings, report: Reporter) -> None:
        settings.refuse(NOT_TAKEN)
        self._settings, self._report = settings, report
        self._values = replaced(
            load_hyperparams(settings.algo, settings.environment, settings.hyperparameter_file),
            settings.hyperparameters,
        )
        try:
            self._agent = LinUcb(**self._values)
        except TypeError as error:
            raise ValueError(f"algo = 'linucb': {error}") from None
        self._env = _environment(settings)
        self._held_out = HeldOut(
            load_scenario(settings.scenario),
            settings.validation_trace or settings.trace,
            load=settings.load,
            slo_scale=settings.slo_scale,
            length_predictor=settings.length_predictor,
        )
        self._folder = TrainingFolder(settings.out)
        self._open()

    def _open(self) -> None:
        """Begin the folder, or find out how far the training in it is."""
        begun = self._folder.open(self._settings, {"hyperparameters": self._values, **about()})
        rows = self._folder.rows(VALIDATIONS) if begun else []
        self._looks = [Validation.of_row(row) for row in rows]
        self.steps = self._looks[-1].steps if self._looks else 0
        self._folder.cut(CURVE, self.steps)
        if self._looks:
            last = bandit_controller(read_policy(self._folder / LAST), "last")
            assert isinstance(last, LinUcb)
            self._agent = last
            self._report.note(f"continuing: {self.steps} of {self._settings.steps} steps were there")
        self._events = Events(self._folder / "tb", "linucb", self._settings.seed, from_steps=self.steps)

    @property
    def best(self) -> Validation:
        """The best look at held-out requests so far."""
        return max(self._looks, key=lambda look: look.score)

    @property
    def stopped_early(self) -> bool:
        """Whether it has not become better for too long."""
        patience = self._settings.patience
        if patience is None or not self._looks:
            return False
        return len(self._looks) - 1 - self._looks.index(self.best) >= patience

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.steps >= self._settings.steps or self.stopped_early

    def segment(self) -> None:
        """Play until the next checkpoint, and make it."""
        settings, number = self._settings, self.steps // self._settings.segment_steps
        until = min((number + 1) * settings.segment_steps, settings.steps)
        seed: int | None = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0] >> 1)
        energy_j = elapsed_s = late = arrived = reward = 0.0
        while self.steps < until:
            self._begin(seed)
            seed, over = None, False
            while self.steps < until and not over:
                told, over, info = self._step()
                energy_j, elapsed_s = energy_j + info["energy_j"], elapsed_s + info["elapsed_s"]
                late, arrived = late + info["cost"], arrived + info["telemetry"]["arrived"]
                reward += told
            self._agent.begin_with(self._agent.bandit, self._agent.scale)
        self._keep(
            {
                "steps": self.steps,
                "power_w": energy_j / max(elapsed_s, 1e-9),
                "late_share": late / max(arrived, 1.0),
                "reward_per_s": reward / max(elapsed_s, 1e-9),
                "load": settings.load,
            }
        )

    def _begin(self, seed: int | None) -> None:
        env = self._env
        env.reset(seed=seed)
        lengths = env.episode.forecaster.lengths
        self._agent.reset(Assignment(env.scenario, env.slo, lengths, env.episode.seed))

    def _step(self) -> tuple[float, bool, dict[str, Any]]:
        env = self._env
        wanted = self._agent.act(None, env.telemetry)
        pair = env.grid.clocks_mhz.index(wanted.frequency_mhz), env.grid.sizes.index(wanted.size)
        _, reward, _, over, info = env.step(np.array(pair))
        self.steps += 1
        self._report.advanced(self.steps)
        return float(reward), over, info

    def _keep(self, row: dict[str, Any]) -> None:
        """Look at held-out requests, and keep what is known: the row of the look last."""
        policy = self._policy()
        found = self._held_out.validate(bandit_controller(policy, "checkpoint"), self.steps)
        self._looks.append(found)
        policy.write(self._folder / "checkpoints" / f"{self.steps:09d}.zip")
        if self.best is found:
            policy.write(self._folder / BEST)
        policy.write(self._folder / LAST)
        self._folder.append(CURVE, row)
        self._folder.append(VALIDATIONS, found.plain())
        self._events.curve(row)
        self._events.validation(found)
        self._report.validated(found, self.best)

    def _policy(self) -> PolicyFile:
        settings, scenario = self._settings, self._env.scenario
        trained = {
            "algo": settings.algo,
            "scenario": scenario.name,
            "scenario_version": scenario.version,
            "trace": settings.trace.rpartition("/")[2],
            "seed": settings.seed,
            "steps": self.steps,
        }
        return bandit_policy(self._agent, self._values, trained)

    def outcome(self) -> Outcome:
        """What came out."""
        told = {"agent": "train-linucb", "seed": self._settings.seed, "load": self._settings.load}
        self._events.hparams({**told, **self._values}, self.best)
        return Outcome(self._folder.model, self.steps, self.best, self.stopped_early)

    def close(self) -> None:
        """Give everything back."""
        if hasattr(self, "_events"):
            self._events.close()
        self._env.close()


def _environment(settings: TrainSettings) -> ServingEnv:
    register_envs()
    options = {
        "scenario": settings.scenario,
        "trace": settings.trace,
        "part": "all" if is_synthetic(settings.trace) else "train",
        "load": settings.load,
        "slo_scale": settings.slo_scale,
        "length_predictor": settings.length_predictor,
        **settings.options,
        "clock_levels": "full",
    }
    env = gym.make(settings.environment, disable_env_checker=True, **options).unwrapped
    if not isinstance(env, ServingEnv) or env.options.actions != "multi-discrete":
        raise ValueError(f"env_id = {settings.environment!r}: linucb plays in ThrottLLeM/Serving-v0")
    return env
