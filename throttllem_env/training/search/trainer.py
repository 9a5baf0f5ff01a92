"""`throttllem train --algo cma-es`: a search that keeps what it needs to go on.

That is the scores of its generations and nothing else: a search that goes on is told them again, which takes
no time, and draws the very same candidates. So an interrupted training ends as one that was not.

Files beside those of every training (`training.folder`): `policy.json`, the best policy, and `held-out.csv`,
how policies compared with the reference, cell by cell.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from throttllem_env.agents.supervising.policy_file import PolicyFile
from throttllem_env.agents.supervising.supervision import OUTPUTS, PARAMETERS
from throttllem_env.scenario import load_scenario
from throttllem_env.training.about import about
from throttllem_env.training.events import Events
from throttllem_env.training.folder import CURVE, VALIDATIONS, TrainingFolder
from throttllem_env.training.hyperparams import load_hyperparams, replaced
from throttllem_env.training.report import Outcome, Reporter
from throttllem_env.training.search.fitness import Fitness
from throttllem_env.training.search.pool import Pool
from throttllem_env.training.search.recipe import Recipe, source_of
from throttllem_env.training.search.search import Generation, search, start
from throttllem_env.training.settings import TrainSettings
from throttllem_env.training.validation import Validation
from throttllem_env.types import FloatArray, IntArray

POLICY, HELD_OUT, SCORES = "policy.json", "held-out.csv", "state/scores.jsonl"

NOT_TAKEN: Final = (
    "lagrangian",
    "residual",
    "imitation",
    "curriculum",
    "randomisation",
    "reward_weights",
    "validation_trace",
)
"""Settings that other learners take."""


def train(settings: TrainSettings, report: Reporter) -> Outcome:
    """Train; see `throttllem_env.training.algorithms.Trainer`.

    Args:
        settings: What to train.
        report: Told how far it is.

    Raises:
        ValueError: Settings that a search does not take.
    """
    training = _Training(settings, report)
    try:
        training.run()
        return training.outcome()
    finally:
        training.close()


class _Training:
    """A training under way."""

    def __init__(self, settings: TrainSettings, report: Reporter) -> None:
        settings.refuse(NOT_TAKEN)
        if settings.options:
            raise ValueError(f"option {next(iter(settings.options))!r}: cma-es draws its own episodes")
        self._settings, self._report = settings, report
        found = load_hyperparams(settings.algo, settings.environment, settings.hyperparameter_file)
        self._values = replaced(found, settings.hyperparameters)
        self._recipe = Recipe.of(self._values)
        self._plan = self._recipe.plan(settings.steps)
        self._source = source_of(
            load_scenario(settings.scenario),
            self._recipe,
            trace=settings.trace,
            load=settings.load,
            slo_scale=settings.slo_scale,
            length_predictor=settings.length_predictor,
        )
        self._first = PolicyFile.load(Path(self._recipe.first)).parameters if self._recipe.first else start()
        self._folder = TrainingFolder(settings.out)
        self._open()

    def _open(self) -> None:
        """Begin the folder, or find out how far the training in it is."""
        begun = self._folder.open(self._settings, {"hyperparameters": self._values, **about()})
        self._kept = kept_scores(self._folder / SCORES) if begun else []
        if not self._kept:
            for name in (POLICY, HELD_OUT):
                (self._folder / name).unlink(missing_ok=True)
        self._done = len(self._kept) * self._recipe.steps
        for table in (CURVE, VALIDATIONS):
            self._folder.cut(table, self._done)
        self._known = {int(row["steps"]): row for row in self._folder.rows(VALIDATIONS)}
        self._best: tuple[Validation, FloatArray] | None = None
        self._stale = 0
        self._events = Events(self._folder / "tb", "cma-es", self._settings.seed, from_steps=self._done)
        if self._kept:
            text = f"continuing: {self._done} of {self._settings.steps} steps were there"
            self._report.note(text)

    def run(self) -> None:
        """Search to the end, or until patience does."""
        seed, recipe = self._settings.seed, self._recipe
        rng = np.random.default_rng([seed, recipe.cases, 0xCA5E5])
        state = self._folder / "state"
        self._pool = Pool.of(self._source.draw(recipe.pool, rng), state / "pool.npz")
        held_out = recipe.held_out_loads, recipe.held_out_predictors, recipe.held_out_replicas
        self._held_out = Pool.of(self._source.held_out(*held_out), state / "held-out.npz")
        self._baseline = self._served(top_clock())
        for generation in search(self._weigh, self._plan, seed, self._first, self._kept):
            self._after(generation)
            if self.stopped_early:
                break

    @property
    def stopped_early(self) -> bool:
        """Whether it has not become better for too long."""
        patience = self._settings.patience
        return patience is not None and self._stale >= patience

    def _weigh(self, candidates: FloatArray, rows: IntArray) -> tuple[FloatArray, float]:
        found = self._pool.weigh(candidates, self._recipe.price, rows)
        better = np.argsort(found.score)[: len(candidates) // 2]
        return found.score, float(found.energy[better].mean())

    def _served(self, parameters: FloatArray) -> Fitness:
        return self._held_out.weigh(parameters[None], self._recipe.price)

    def _after(self, generation: Generation) -> None:
        """Keep a generation, and look at held-out cases where it is time."""
        steps = generation.number * self._recipe.steps
        if generation.number > len(self._kept):
            self._folder.append(CURVE, curve_row(generation, steps))
            told = {"energy": generation.energy, "best": float(generation.scores.min())}
            self._events.learner(told, steps)
            keep_scores(self._folder / SCORES, generation.scores)
        every = max(1, round(self._settings.segment_steps / self._recipe.steps))
        if generation.number % every == 0 or generation.number in (1, self._plan.generations):
            self._validate(steps, generation.mean)
        self._report.advanced(steps)

    def _validate(self, steps: int, mean: FloatArray) -> None:
        """Hold a policy to the reference on held-out cases; the best one is kept."""
        if steps in self._known:
            found = Validation.of_row(self._known[steps])
        else:
            served = self._served(mean)
            found = self._validation(steps, served)
            self._folder.append(VALIDATIONS, found.plain())
            append_cells(self._folder / HELD_OUT, steps, served)
            self._events.validation(found)
        self._stale += 1
        if self._best is None or found.score > self._best[0].score:
            self._best, self._stale = (found, mean), 0
            self._policy().save(self._folder / POLICY)
        self._report.validated(found, self._best[0])

    def _validation(self, steps: int, served: Fitness) -> Validation:
        outcome, slo = served.outcome, self._source.scenario.latency_slo(self._settings.slo_scale)
        energy_j = float(outcome.energy_j.sum())
        requests = sum(case.requests for case in self._held_out.cases)
        attainment = 1 - float(outcome.late.sum()) / requests
        tbt_mean_s = float(outcome.gaps_s.sum() / max(outcome.tokens.sum(), 1.0))
        return Validation(
            steps,
            energy_j,
            1 - energy_j / float(self._baseline.outcome.energy_j.sum()),
            attainment,
            slo.attained(attainment, tbt_mean_s),
            tbt_mean_s,
            -float(served.score[0]),
        )

    def _policy(self) -> PolicyFile:
        assert self._best is not None
        found, mean = self._best
        card = {
            "command": about()["command"],
            "settings": self._settings.plain(),
            "hyperparameters": dict(self._values),
            "validation": found.plain(),
        }
        return PolicyFile(self._source.scenario.name, mean, card)

    def outcome(self) -> Outcome:
        """What came out."""
        assert self._best is not None
        best, told = self._best[0], self._settings
        self._events.hparams({"agent": "train-cma-es", "seed": told.seed, **_plain(self._values)}, best)
        return Outcome(self._folder / POLICY, self._steps, best, self.stopped_early)

    @property
    def _steps(self) -> int:
        return len(kept_scores(self._folder / SCORES)) * self._recipe.steps

    def close(self) -> None:
        """Write what is waiting."""
        self._events.close()


def top_clock() -> FloatArray:
    """float64[PARAMETERS], the policy that serves with the largest size at the top clock."""
    parameters, at = np.zeros(PARAMETERS), 0
    for output, names in OUTPUTS.items():
        if output in ("demand", "least_clock"):
            parameters[at + names.index("one")] = 2.0
        at += len(names)
    return parameters


def curve_row(generation: Generation, steps: int) -> dict[str, Any]:
    """A row of the learning curve; energies are relative to the reference's."""
    scores = generation.scores
    return {
        "steps": steps,
        "generation": generation.number,
        "energy": round(generation.energy, 6),
        "score_best": round(float(scores.min()), 6),
        "score_mean": round(float(scores.mean()), 6),
    }


def append_cells(path: Path, steps: int, served: Fitness) -> None:
    """Write how a policy compared with the reference, a row for each cell."""
    begun = path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not begun:
            writer.writerow(("steps", "cell", "energy", "excess_points"))
        for cell, energy, excess in zip(served.cells, served.energy[0], served.excess[0], strict=True):
            writer.writerow((steps, cell, f"{energy:.6f}", f"{excess:.6f}"))


def kept_scores(path: Path) -> list[FloatArray]:
    """Scores of generations that were served; a line that was cut off is taken out of the file."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [np.array(json.loads(line)) for line in whole.splitlines()]


def keep_scores(path: Path, scores: FloatArray) -> None:
    """Add a generation's scores, to the last bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(scores.tolist()) + "\n")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float) else str(value) for name, value in values.items()}
