"""Hyperparameters of PPO, chosen by Optuna on held-out requests.

A trial is a short training on the study's randomised loads, worth its best look at held-out requests; one
that does worse than half of the others at the same look is given up. The first trial has the values that
ship. Trials are kept in a journal: a study that was cut off goes on, and several processes may work on one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from throttllem_env.training.algorithms import train
from throttllem_env.training.report import Silent
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.validation import Validation

if TYPE_CHECKING:
    import optuna

JOURNAL: Final = "trials.journal"
STUDY: Final = "ppo"
STARTUP_TRIALS: Final = 4
"""Drawn at random, and never given up: what later ones are held to."""

SHIPPED: Final[Mapping[str, Any]] = {
    "learning_rate": 5e-4,
    "gamma": 0.99,
    "ent_coef": 0.003,
    "n_steps": 128,
    "batch_size": 256,
    "width": 64,
    "violation_weight": 30.0,
}
"""What the first trial has: the YAML's values, and the study's own weight of lateness."""

MakeSettings = Callable[[Path, Mapping[str, Any], Mapping[str, Any]], TrainSettings]
"""From a trial's folder, hyperparameters and options of the environment to a training."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial that is over.

    Attributes:
        number: Counted from 0.
        values: What it was tried with.
        score: The best it came to on held-out requests; higher is better.
        looks: How often it was looked at before it was over or given up.
        given_up: Whether it was given up.
    """

    number: int
    values: Mapping[str, Any]
    score: float
    looks: int
    given_up: bool


def suggested(trial: "optuna.Trial") -> dict[str, Any]:
    """Values to try next."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        "gamma": trial.suggest_categorical("gamma", [0.97, 0.98, 0.99, 0.995]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-4, 1e-2, log=True),
        "n_steps": trial.suggest_categorical("n_steps", [64, 128, 256]),
        "batch_size": trial.suggest_categorical("batch_size", [256, 512, 1024]),
        "width": trial.suggest_categorical("width", [32, 64, 128]),
        "violation_weight": trial.suggest_float("violation_weight", 10.0, 300.0, log=True),
    }


def hyperparameters_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """PPO's arguments, in the YAML's notation.

    Args:
        values: As `suggested` or `SHIPPED` has them.
    """
    plain = {name: values[name] for name in ("gamma", "ent_coef", "n_steps", "batch_size")}
    width = values["width"]
    return {
        **plain,
        "learning_rate": f"lin_{values['learning_rate']:.3g}",
        "policy_kwargs": {"net_arch": [width, width]},
    }


def options_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the environment among a trial's values."""
    return {"violation_weight": values["violation_weight"]}


def tune(
    make_settings: MakeSettings, out: Path, trials: int, notify: Callable[[str], None]
) -> "optuna.Study":
    """Run trials until so many are over.

    Args:
        make_settings: Makes a trial's training.
        out: Folder of the trials and their journal.
        trials: How many in all, those of earlier calls included.
        notify: Told what comes of each.
    """
    from optuna.study import MaxTrialsCallback

    study = open_study(out)
    if not study.trials:
        study.enqueue_trial(dict(SHIPPED))

    def told(_: "optuna.Study", done: "optuna.trial.FrozenTrial") -> None:
        notify(f"trial {done.number}: {done.state.name.lower()}, {done.value}")

    if len(study.get_trials(states=_over())) < trials:
        study.optimize(
            lambda trial: _worth(trial, make_settings, out),
            n_trials=trials,
            callbacks=[MaxTrialsCallback(trials, states=_over()), told],
        )
    return study


def open_study(out: Path) -> "optuna.Study":
    """The study of a folder, begun or found there."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    study = optuna.create_study(
        storage=storage,
        study_name=STUDY,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=0),
        load_if_exists=True,
    )
    # A study that goes on must not draw again what it drew before.
    seed = len(study.trials)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
    return study


def _over() -> tuple[Any, Any]:
    from optuna.trial import TrialState

    return TrialState.COMPLETE, TrialState.PRUNED


def _worth(trial: "optuna.Trial", make_settings: MakeSettings, out: Path) -> float:
    values = suggested(trial)
    settings = make_settings(out / f"trial-{trial.number}", hyperparameters_of(values), options_of(values))
    return train(settings, _Judge(trial)).best.score


class _Judge(Silent):
    """Gives up what does worse than most."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial, self._looks = trial, 0

    def validated(self, found: Validation, best: Validation) -> None:
        """See `Reporter`."""
        import optuna

        self._looks += 1
        self._trial.report(best.score, self._looks)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def trials_of(out: Path) -> list[Trial]:
    """The trials of a folder that are over, the best first; none where nothing was tuned."""
    if not (out / JOURNAL).is_file():
        return []
    found = []
    for trial in open_study(out).get_trials(states=_over()):
        score = max(trial.intermediate_values.values())
        given_up = trial.state.name == "PRUNED"
        found.append(Trial(trial.number, trial.params, score, len(trial.intermediate_values), given_up))
    return sorted(found, key=lambda trial: -trial.score)
