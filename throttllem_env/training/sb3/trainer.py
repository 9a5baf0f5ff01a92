"""Training with a learner of Stable-Baselines3, segment by segment.

A segment ends with a checkpoint and an evaluation on held-out requests. It begins with new episodes, seeded
by the training's seed and its own number: nothing but what a checkpoint keeps passes from one to the next, so
an interrupted training goes on as if it had not been.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger

from throttllem_env.agents.learned.loading import controller_of
from throttllem_env.agents.learned.policy_file import PolicyFile
from throttllem_env.envs.residual import Moves
from throttllem_env.scenario import load_scenario
from throttllem_env.training.about import about
from throttllem_env.training.events import Events
from throttllem_env.training.folder import BEST, CURVE, LAST, VALIDATIONS, TrainingFolder
from throttllem_env.training.hyperparams import load_hyperparams, replaced
from throttllem_env.training.randomised import HeldOutMix, drawn_options
from throttllem_env.training.report import Outcome, Reporter
from throttllem_env.training.sb3 import checkpoint
from throttllem_env.training.sb3.callbacks import ROW_STEPS, Row, Watch
from throttllem_env.training.sb3.environments import Environments, make_environments
from throttllem_env.training.sb3.imitation import imitate
from throttllem_env.training.sb3.models import lean_on_reference, make_model
from throttllem_env.training.sb3.policies import choices_of, policy_of
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.validation import HeldOut, Validation

DRAWS = 0xD7A35
"""Sets apart what a segment draws from all else that its seed stands for."""


def train(settings: TrainSettings, report: Reporter) -> Outcome:
    """Train; see `throttllem_env.training.algorithms.Trainer`.

    Args:
        settings: What to train.
        report: Told how far it is.

    Raises:
        ValueError: Settings that do not go together, or that learner, scenario or trace do not take.
    """
    with one_thread():
        training = _Training(settings, report)
        try:
            while not training.over:
                training.segment()
            return training.outcome()
        finally:
            training.close()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: nets are small, and sums come out the same every time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    """A training under way."""

    def __init__(self, settings: TrainSettings, report: Reporter) -> None:
        _check_combination(settings)
        self._settings, self._report = settings, report
        found = load_hyperparams(settings.algo, settings.environment, settings.hyperparameter_file)
        self._values = replaced(found, settings.hyperparameters)
        self._held_out = _held_out(settings)
        self._folder = TrainingFolder(settings.out)
        self._price = settings.lagrangian.first if settings.lagrangian else None
        self._stacks: dict[tuple[float, int], Environments] = {}
        self._environments = self._stack(0.0, 0)
        self._model: Any = make_model(settings.algo, self._values, self._environments, settings.seed)
        begun = self._folder.open(settings, {"hyperparameters": self._values, **about()})
        state = checkpoint.load_state(self._state) if begun else None
        self._stale = 0
        self._best: Validation | None = None
        if state:
            self._resume(state)
        for table in (CURVE, VALIDATIONS):
            self._folder.cut(table, self.steps)
        self._events = Events(self._folder / "tb", settings.algo, settings.seed, from_steps=self.steps)
        self._model.set_logger(Logger(None, [_ToEvents(self._events)]))

    @property
    def _state(self) -> Any:
        return self._folder / "state"

    @property
    def steps(self) -> int:
        """Steps done."""
        return int(self._model.num_timesteps)

    @property
    def _number(self) -> int:
        """Number of the segment that comes next; rollouts may overshoot, so some are skipped."""
        return self.steps // self._settings.segment_steps

    @property
    def stopped_early(self) -> bool:
        """Whether it has not become better for too long."""
        patience = self._settings.patience
        return patience is not None and self._stale >= patience

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.steps >= self._settings.steps or self.stopped_early

    def _stack(self, share: float, number: int) -> Environments:
        """The environments for the load and, if they are drawn, the segment; built once for each."""
        settings = self._settings
        load = settings.curriculum.load(share) if settings.curriculum else settings.load
        key = load, number if settings.randomisation else 0
        if key not in self._stacks:
            if settings.randomisation:
                self._stacks.clear()  # those of a segment that is over are not needed again
            self._stacks[key] = self._built(load, number)
        return self._stacks[key]

    def _built(self, load: float, number: int) -> Environments:
        settings, num_envs = self._settings, int(self._values.get("n_envs", 1))
        drawn = None
        if settings.randomisation:
            drawn = drawn_options(settings, num_envs, np.random.default_rng([settings.seed, number, DRAWS]))
        return make_environments(
            settings,
            load=load,
            num_envs=num_envs,
            normalise=bool(self._values.get("normalize", False)),
            gamma=float(self._values.get("gamma", 0.99)),
            price=self._price,
            drawn=drawn,
        )

    def _resume(self, state: dict[str, Any]) -> None:
        checkpoint.restore(self._state, self._model, self._environments.venv, state)
        self._stale, self._price = state["stale"], state["price"]
        self._best = Validation(**state["best"])
        self._report.note(f"continuing: {self.steps} of {self._settings.steps} steps were there")

    def segment(self) -> None:
        """Learn until the next checkpoint, and make it."""
        self._enter()
        if self.steps == 0:
            self._prepare()
        settings = self._settings
        until = min((self._number + 1) * settings.segment_steps, settings.steps)
        with _whole_training(self._model, settings.steps):
            self._model.learn(until - self.steps, self._watch(), log_interval=1, reset_num_timesteps=False)
        if self._environments.priced:
            self._price = self._environments.priced.price
        self._keep()

    def _enter(self) -> None:
        """Seed everything for this segment, and move to the environments that it is time for."""
        before, seed = self._environments, segment_seed(self._settings.seed, self._number)
        self._environments = now = self._stack(self.steps / self._settings.steps, self._number)
        # One set of statistics for all loads.
        now.venv.obs_rms, now.venv.ret_rms = before.venv.obs_rms, before.venv.ret_rms
        if now.priced and self._price is not None:
            now.priced.price = self._price
        now.meter.read()
        self._model.set_env(now.venv)
        self._model.set_random_seed(seed)
        # Who is new here knows no episodes of before.
        self._model._last_obs, self._model.ep_info_buffer = None, None

    def _prepare(self) -> None:
        """What comes before the first step."""
        settings = self._settings
        if settings.residual:
            moves = Moves()
            lean_on_reference(self._model, moves.none, [len(moves.clocks), len(moves.sizes)])
        if settings.imitation:
            loss = imitate(
                self._model, self._environments, settings.imitation, segment_seed(settings.seed, 0)
            )
            self._environments.meter.read()
            if loss is not None:
                self._report.note(f"imitated {settings.imitation.teacher}: loss {loss:.3f} per action")
            self._model._last_obs = None

    def _watch(self) -> Watch:
        settings = self._settings
        return Watch(
            self._environments,
            settings.curriculum.load(self.steps / settings.steps) if settings.curriculum else settings.load,
            min(ROW_STEPS, settings.segment_steps),
            settings.lagrangian,
            self._row,
            self._report.advanced,
        )

    def _row(self, row: Row) -> None:
        self._folder.append(CURVE, row)
        self._events.curve(row)

    def _keep(self) -> None:
        """Export, evaluate, keep: in this order, so that an interruption loses a segment, not the folder."""
        policy, found = self._judged()
        policy.write(self._folder / "checkpoints" / f"{self.steps:09d}.zip")
        self._folder.append(VALIDATIONS, found.plain())
        self._events.validation(found)
        self._stale += 1
        if self._best is None or found.score > self._best.score:
            self._best, self._stale = found, 0
            policy.write(self._folder / BEST)
        policy.write(self._folder / LAST)
        state = {
            "stale": self._stale,
            "price": self._price,
            "best": self._best.plain(),
        }
        checkpoint.save(self._state, self._model, self._environments.venv, state)
        self._report.validated(found, self._best)

    def _judged(self) -> tuple[PolicyFile, Validation]:
        """The policy with the better way to choose, and how it does on held-out requests."""
        candidates = []
        for choice in choices_of(self._model):
            policy = policy_of(self._model, self._environments, self._settings, choice)
            found = self._held_out.validate(controller_of(policy, "checkpoint"), self.steps)
            candidates.append((policy, found))
        return max(candidates, key=lambda candidate: candidate[1].score)

    def outcome(self) -> Outcome:
        """What came out."""
        assert self._best is not None
        told = self._settings
        self._events.hparams(
            {"agent": f"train-{told.algo}", "seed": told.seed, "load": told.load, **_plain(self._values)},
            self._best,
        )
        return Outcome(self._folder.model, self.steps, self._best, self.stopped_early)

    def close(self) -> None:
        """Give everything back."""
        if hasattr(self, "_events"):
            self._events.close()
        for stack in self._stacks.values():
            stack.venv.close()


def segment_seed(seed: int, number: int) -> int:
    """Seed of a segment.

    Args:
        seed: The training's.
        number: The segment's.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


@contextmanager
def _whole_training(model: Any, steps: int) -> Iterator[None]:
    """Let schedules run over the whole training; `learn` would have each segment run through them."""
    plain: Callable[[int, int], None] = model._update_current_progress_remaining
    model._update_current_progress_remaining = lambda done, _: plain(min(done, steps), steps)
    try:
        yield
    finally:
        del model._update_current_progress_remaining


def _held_out(settings: TrainSettings) -> HeldOut | HeldOutMix:
    if settings.randomisation:
        return HeldOutMix(settings)
    return HeldOut(
        load_scenario(settings.scenario),
        settings.validation_trace or settings.trace,
        load=settings.curriculum.loads[-1] if settings.curriculum else settings.load,
        slo_scale=settings.slo_scale,
        length_predictor=settings.length_predictor,
    )


def _check_combination(settings: TrainSettings) -> None:
    """Refuse options that do not go together."""
    algo = settings.algo
    if settings.residual and algo not in ("ppo", "recurrent-ppo"):
        raise ValueError(f"residual: algo = {algo!r}: its actions are moves; take ppo or recurrent-ppo")
    if settings.residual and settings.imitation:
        raise ValueError("imitation: a residual agent begins with its reference's choices anyway; take one")
    if settings.residual and settings.environment not in (
        "ThrottLLeM/Serving-v0",
        "ThrottLLeM/ServingEvents-v0",
    ):
        raise ValueError(
            f"residual: env_id = {settings.environment!r}: take ThrottLLeM/Serving-v0 or ServingEvents-v0"
        )
    vector = settings.environment == "ThrottLLeM/MOServing-v0"
    if vector != (settings.reward_weights is not None):
        raise ValueError(
            f"reward_weights = {settings.reward_weights}, env_id = {settings.environment!r}: weights go with "
            "ThrottLLeM/MOServing-v0, and only with it"
        )
    if settings.randomisation and (settings.curriculum or settings.validation_trace):
        raise ValueError("randomisation: it has loads and held-out requests of its own; leave out the others")
    if settings.lagrangian and vector:
        raise ValueError("lagrangian: it sets the price of lateness; reward_weights would set a second one")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float) else str(value) for name, value in values.items()}


class _ToEvents(KVWriter):
    """What a learner logs, into the events of the training."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """See `KVWriter`; time is left out, it differs from run to run."""
        told = {tag: value for tag, value in key_values.items() if not tag.startswith("time/")}
        self._events.learner(told, step)

    def close(self) -> None:
        """The events are closed by the training."""
