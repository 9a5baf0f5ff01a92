"""`throttllem transitions`: what a controller saw, did and got, as a Minari data set."""

from pathlib import Path
from typing import Annotated

import typer

from throttllem_env.cli.pairs import pairs

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "Ten episodes of the reference, for offline learning:",
        "[cyan]throttllem transitions --agent throttllem --episodes 10 --out out/datasets[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("transitions", epilog=EPILOG)(transitions)


def transitions(
    agent: Annotated[str, typer.Option(help="Controller, or path of a trained model.")] = "throttllem",
    dataset: Annotated[
        str, typer.Option(help="Minari's id of the data set.")
    ] = "throttllem/serving-reference-v0",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode.")] = 0,
    env_id: Annotated[str, typer.Option(help="Environment.")] = "ThrottLLeM/Serving-v0",
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the environment, as name=value; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of data sets.", show_default="Minari's own")
    ] = None,
) -> None:
    """Export transitions of a controller as a Minari data set.

    Exit status: 0 done, 1 a file could not be written, 2 wrong input, 130 interrupted.
    """
    from throttllem_env.cli.console import progress_bar
    from throttllem_env.cli.extras import needs
    from throttllem_env.training.transitions import export_transitions

    with progress_bar() as bar, needs("minari"):
        task = bar.add_task("episodes", total=episodes)
        path = export_transitions(
            agent,
            dataset,
            episodes=episodes,
            seed=seed,
            env_id=env_id,
            options=pairs("option", option),
            root=out,
            on_episode=lambda done: bar.update(task, completed=done),
        )
    typer.echo(f"Wrote {path}: {agent}, {episodes} episode{'' if episodes == 1 else 's'}")
