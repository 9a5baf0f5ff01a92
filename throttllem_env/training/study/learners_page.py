"""docs/learners.md: what the learners of single decisions came to, as tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.document import Section, Table, write_page
from throttllem_env.training.study.contest import REFERENCE, ContestCase, Standing, contest
from throttllem_env.training.study.evaluate import test_cases
from throttllem_env.training.study.learners import LEARNERS, folder_of, read_cost_s
from throttllem_env.training.study.learning import Training, read_training
from throttllem_env.training.study.page import percent
from throttllem_env.training.study.tuning import SHIPPED, Trial

HEAD = """# Learners of single decisions

PPO and its kin, DQN and SAC: each was trained and held to the reference as `learned` is in
[agents.md](agents.md). Made by

{commands}

All are trained alike: 32 environments (16 for dqn, qrdqn and sac), each with a load of its own, drawn anew
for each third of the training: train blocks of the Azure hours of 2023, drawn traces like them and bursts, at
0.4 to 1.05 of the rated load, on hardware that differs from its profile, with slow switches and wrong lengths
(`throttllem train --randomise`). A late request costs three times what the environment usually takes
(`violation_weight=30`). After each third, the policy is held to validation blocks of conv at 0.5, 0.7 and 1.0
and of code at 0.7, and to bursts at 0.7; the best one is kept. It is *worth* its energy relative to
`throttllem`'s plus a price of lateness beyond `throttllem`'s, on average over the five: less is better,
`throttllem` itself is worth 1.015. What the figures mean stands in [agents-notes.md](agents-notes.md)."""

CASES = {"conv 0.5", "conv 0.7", "conv 1", "code 0.7", "bursty 0.7"}
RIVAL = "throttllem-energy"


@dataclass(frozen=True, slots=True)
class Tried:
    """A training that is there.

    Attributes:
        learner: Its name.
        training: Its looks at held-out requests.
        cost_s: Its processor time, seconds.
        model: Its policy.
    """

    learner: str
    training: Training
    cost_s: float
    model: str


@dataclass(slots=True)
class LearnersStudy:
    """All that the page is written from.

    Attributes:
        tried: Trainings.
        test: Standings by case, then agent; empty where tests were not run.
        trials: Of the tuning, the best first.
    """

    tried: Sequence[Tried]
    test: Sequence[Mapping[str, Standing]]
    trials: Sequence[Trial] = field(default_factory=list)


def all_tried(out: Path, seeds: int = 10) -> list[Tried]:
    """Trainings of a folder, in the order of `LEARNERS`.

    Args:
        out: Folder of the study.
        seeds: Highest number of seeds looked for.
    """
    found = []
    for name in LEARNERS:
        for seed in range(seeds):
            folder = folder_of(out, name, seed)
            training = read_training(folder, name, seed)
            if training:
                found.append(Tried(name, training, read_cost_s(folder), str(folder / "model.zip")))
    return found


def serve_tests(
    tried: Sequence[Tried], traces: Path, out: Path, *, jobs: int, notify: Callable[[str], None]
) -> list[dict[str, Standing]]:
    """Serve test blocks under all policies.

    Args:
        tried: The trainings.
        traces: Folder of the recorded traces.
        out: Folder of the study, where runs are kept.
        jobs: Runs at once.
        notify: Told what is being done.

    Raises:
        ValueError: Nothing was trained.
        RuntimeError: A run failed.
    """
    if not tried:
        raise ValueError("no training is there; run `train` first")

    def served(case: ContestCase) -> dict[str, Standing]:
        notify(f"{case.name}: {len(tried)} policies")
        return contest(case, [RIVAL, *(one.model for one in tried)], seeds=1, jobs=jobs, out=out / "runs")

    cases = [case for case in test_cases(traces) if case.name in CASES and case.predictor == "learned"]
    return [served(case) for case in cases]


def write_learners_page(study: LearnersStudy, docs: Path) -> Path:
    """Write `learners.md`.

    Args:
        study: What is known.
        docs: Where it goes.
    """
    docs.mkdir(parents=True, exist_ok=True)
    seeds: dict[str, int] = {}
    for one in study.tried:
        seeds[one.learner] = max(seeds.get(one.learner, 0), one.training.seed + 1)
    told = ",".join(f"{name}:{count}" if count > 1 else name for name, count in seeds.items())
    sections = [_training(study.tried), _tests(study), *([_tuning(study.trials)] if study.trials else [])]
    return write_page(
        HEAD.format(commands=_commands(study, told)), sections, docs / "learners.md", docs / "images"
    )[0]


def _commands(study: LearnersStudy, learners: str) -> str:
    """What was run, and nothing else."""
    script, traces = "    python scripts/try_learners.py", "--traces ../shared/traces"
    lines = [f"{script} train    {traces} --learners {learners}"]
    if study.trials:
        lines.append(f"{script} tune     {traces} --trials {len(study.trials)}")
    lines.append(f"{script} evaluate {traces}" + ("" if study.test else " --no-tests"))
    return "\n".join(lines)


def _training(tried: Sequence[Tried]) -> Section:
    about = "\n".join(f"- `{name}`: {LEARNERS[name].about}." for name in {one.learner: 0 for one in tried})
    rows = [_trained(one) for one in tried]
    heads = ["learner", "seed", "steps", "processor time", "worth at each look", "best", "saved", "in time"]
    caption = (
        "Held-out requests; *saved* is energy against the top clock, with *in time* that of the policy kept:"
    )
    return Section("Training", about, [Table(caption, heads, rows)])


def _trained(one: Tried) -> list[str]:
    training, best = one.training, one.training.best
    return [
        one.learner,
        f"{training.seed}",
        _steps(training.steps[-1], LEARNERS[one.learner].steps),
        f"{one.cost_s:.0f} s",
        ", ".join(f"{-score:.2f}" for score in training.score),
        f"{-training.score[best]:.3f}",
        f"{100 * training.saving[best]:.1f} %",
        percent(training.attainment[best]),
    ]


def _steps(done: float, planned: int) -> str:
    """How far a training came; it overshoots by a rollout at most."""
    return f"{done:,.0f}" if done >= planned else f"{done:,.0f}, cut off before {planned:,}"


def _tests(study: LearnersStudy) -> Section:
    if not study.test:
        return Section("Test blocks", "Not run.")
    agents = {RIVAL: RIVAL} | {one.model: f"{one.learner}, seed {one.training.seed}" for one in study.tried}
    cases = [standings[REFERENCE] for standings in study.test]
    heads = ["agent", *(f"{one.case.name} ({percent(one.attainment)})" for one in cases), "wins"]
    rows = []
    for agent, name in agents.items():
        standings = [by_agent[agent] for by_agent in study.test]
        wins = sum(standing.wins for standing in standings)
        rows.append([name, *(_cell(standing) for standing in standings), f"{wins} of {len(standings)}"])
    lead = (
        f"Test blocks, learned lengths, one replica: energy relative to `{REFERENCE}`'s, and percentage "
        "points of requests in time above its own, which stand in the heads. A win (bold): at least 5 % less "
        "energy at attainment not lower."
    )
    return Section("Test blocks", lead, [Table("By case:", heads, rows)])


def _cell(standing: Standing) -> str:
    text = f"{100 * standing.energy:.1f} %, {standing.points:+.2f}"
    return f"**{text}**" if standing.wins else text


def _tuning(trials: Sequence[Trial]) -> Section:
    names = list(SHIPPED)
    rows = [
        [
            f"{trial.number}",
            f"{-trial.score:.3f}",
            f"{trial.looks}{', given up' if trial.given_up else ''}",
            *(_value(trial.values[name]) for name in names),
        ]
        for trial in trials
    ]
    lead = (
        "Optuna's tree of Parzen estimators over short trainings of PPO on the same loads; trial 0 has the "
        "values that ship. A trial is worth its best look at held-out requests; those worse than half of the "
        "others at the same look are given up."
    )
    return Section("Tuning", lead, [Table("The best first:", ["trial", "worth", "looks", *names], rows)])


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"
