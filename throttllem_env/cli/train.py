"""`throttllem train`: learned agents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from throttllem_env.cli.pairs import pairs
from throttllem_env.suggest import nearest

if TYPE_CHECKING:
    from rich.progress import Progress

    from throttllem_env.training.extras import Randomisation
    from throttllem_env.training.report import Outcome
    from throttllem_env.training.validation import Validation

RECORDED = ("conv", "code")
"""Families of load that recorded requests may stand for."""

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "PPO on a chat load drawn anew in every episode; a first impression in a minute:",
        "[cyan]throttllem train --algo ppo --steps 100000 --out out/ppo[/cyan]",
        "What it learned, against the reference, on a recorded trace's test blocks:",
        "[cyan]throttllem compare --trace azure-2023-conv --split test "
        "--agents max-frequency,throttllem,out/ppo/model.zip[/cyan]",
        "Moves around the reference, lateness priced so that at most 0.5 % are late:",
        "[cyan]throttllem train --algo ppo --residual throttllem --late-share 0.005[/cyan]",
        "Hyperparameters and environment options follow their names:",
        "[cyan]throttllem train --algo sac --hyper batch_size=512 --option episode_s=600[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("train", epilog=EPILOG)(train)


def train(
    algo: Annotated[
        str, typer.Option(help="Learner: ppo, maskable-ppo, recurrent-ppo, dqn, qrdqn, sac, linucb, cma-es.")
    ] = "ppo",
    scenario: Annotated[str, typer.Option(help="A shipped scenario, or a YAML file.")] = "llama2-13b-a100",
    trace: Annotated[
        str, typer.Option(help="Requests; of a recorded trace only the train blocks are used.")
    ] = "azure-conv-like",
    validation_trace: Annotated[
        str | None,
        typer.Option(help="Policies are chosen on its validation blocks.", show_default="the same trace"),
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of single environments.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seeds everything that is random.")] = 0,
    load: Annotated[float, typer.Option(help="Busiest minute, as a share of the rated load.")] = 1.0,
    slo_scale: Annotated[float, typer.Option(help="Multiplies the latency SLOs.")] = 1.0,
    length_predictor: Annotated[str, typer.Option(help="learned, noisy-P, or oracle.")] = "learned",
    env_id: Annotated[
        str | None, typer.Option(help="Environment.", show_default="the one that fits the learner")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the environment, as name=value; may be repeated.")
    ] = None,
    hyper: Annotated[
        list[str] | None, typer.Option(help="Hyperparameter, as name=value; may be repeated.")
    ] = None,
    hyperparams: Annotated[
        Path | None, typer.Option(help="YAML in rl-zoo's layout.", show_default="the shipped one")
    ] = None,
    checkpoint: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints, each with an evaluation on held-out requests.",
            show_default="a twentieth of all",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations without a better one.")
    ] = None,
    late_share: Annotated[
        float | None,
        typer.Option(help="Lagrangian: let the price of lateness move until this share of requests is late."),
    ] = None,
    residual: Annotated[
        str | None, typer.Option(help="Move around this controller's choices, within bounds (PPO).")
    ] = None,
    imitate: Annotated[
        str | None, typer.Option(help="Begin by imitating this controller for 20,000 steps.")
    ] = None,
    curriculum: Annotated[
        str | None, typer.Option(help="Loads one after another, such as 0.4,0.7,1.0.")
    ] = None,
    randomise: Annotated[
        bool,
        typer.Option(
            "--randomise",
            help="Serve another load on other hardware in every environment, drawn anew at each checkpoint.",
        ),
    ] = False,
    recorded: Annotated[
        list[str] | None,
        typer.Option(help="With --randomise: conv=PATH or code=PATH, recorded requests; may be repeated."),
    ] = None,
    reward_weights: Annotated[
        str | None, typer.Option(help="Weights of energy and violations, for ThrottLLeM/MOServing-v0.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever the folder holds.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the training.")] = Path("out/train"),
) -> None:
    """Train an agent, choose the best checkpoint on held-out requests, and keep it as a controller.

    Writes model.zip (what [cyan]compare --agents[/cyan] takes; weights and text, nothing that can run), the
    learning curve, every evaluation, checkpoints and TensorBoard events. Given again, the command goes on
    where it stopped.
    Exit status: 0 done, 1 a file could not be written, 2 wrong input, 130 interrupted.
    """
    from throttllem_env.cli.extras import needs
    from throttllem_env.training.algorithms import train as run
    from throttllem_env.training.extras import Curriculum, Imitation, Lagrangian, Residual
    from throttllem_env.training.settings import TrainSettings

    weights = _numbers("reward_weights", reward_weights)
    if weights is not None and len(weights) != 2:
        raise ValueError(f"reward_weights = {reward_weights!r}: expected two numbers, such as 1,10")
    loads = _numbers("curriculum", curriculum)
    settings = TrainSettings(
        algo=algo,
        steps=steps,
        out=out,
        scenario=scenario,
        trace=trace,
        validation_trace=validation_trace,
        seed=seed,
        load=load,
        slo_scale=slo_scale,
        length_predictor=length_predictor,
        env_id=env_id,
        options=pairs("option", option),
        hyperparameters=pairs("hyper", hyper),
        hyperparameter_file=hyperparams,
        checkpoint_steps=checkpoint,
        patience=patience,
        lagrangian=None if late_share is None else Lagrangian(late_share),
        residual=None if residual is None else Residual(residual),
        imitation=None if imitate is None else Imitation(imitate),
        curriculum=None if loads is None else Curriculum(loads),
        randomisation=_randomisation(randomise, pairs("recorded", recorded)),
        reward_weights=None if weights is None else (weights[0], weights[1]),
        fresh=fresh,
    )
    from throttllem_env.cli.console import progress_bar

    with progress_bar() as bar, needs("rl"):
        outcome = run(settings, _Bar(bar, steps))
    _show(outcome, out)


class _Bar:
    """Shows how far a training is, and how its policies do."""

    def __init__(self, bar: "Progress", steps: int) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=steps)

    def advanced(self, steps: int) -> None:
        """See `Reporter`."""
        self._bar.update(self._task, completed=steps)

    def validated(self, found: "Validation", best: "Validation") -> None:
        """See `Reporter`."""
        text = f"held out: {_said(found)}; best so far {_said(best)}"
        self._bar.update(self._task, description=text)

    def note(self, text: str) -> None:
        """See `Reporter`."""
        typer.echo(text, err=True)


def _said(found: "Validation") -> str:
    return f"{found.saving:.1%} saved, {found.slo_attainment:.2%} in time"


def _show(outcome: "Outcome", out: Path) -> None:
    why = ", stopped early" if outcome.stopped_early else ""
    typer.echo(
        f"{outcome.steps} steps{why}. Best checkpoint, on held-out requests ({outcome.best.steps} steps):"
    )
    typer.echo(f"  {_said(outcome.best)}, against the top clock")
    typer.echo("Wrote:")
    typer.echo(f"  {outcome.model}   compare it with: throttllem compare --agents throttllem,{outcome.model}")
    typer.echo(f"  {out / 'tb'}   look at it with: tensorboard --logdir {out / 'tb'}")


def _randomisation(wanted: bool, recorded: dict[str, Any]) -> "Randomisation | None":
    from throttllem_env.training.extras import Randomisation

    for family in recorded:
        if family not in RECORDED:
            raise ValueError(f"recorded = {family!r}: {nearest(family, RECORDED)}")
    if recorded and not wanted:
        raise ValueError("recorded: goes with --randomise, and only with it")
    paths: dict[str, Any] = {name: str(path) for name, path in recorded.items()}
    return Randomisation(**paths) if wanted else None


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} = {text!r}: expected numbers, such as 0.5,1.0") from None
