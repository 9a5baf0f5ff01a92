"""`throttllem report`: what became of a comparison."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "Does the third run of a comparison come out the same, to the last bit?",
        "[cyan]throttllem report --replay out/compare/results.json --entry 2[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("report", epilog=EPILOG)(report)


def report(
    replay: Annotated[
        Path, typer.Option(help="A results.json: run one of its entries again.", show_default=False)
    ],
    entry: Annotated[int, typer.Option(help="Which entry of its runs, from 0 on.")] = 0,
) -> None:
    """Run an entry of a results.json again and compare every metric to the last bit.

    Exit status: 0 the same came out, 1 something differs, 2 wrong input.
    """
    from throttllem_env.evaluation.replay import replay_entry

    replayed = replay_entry(replay, entry)
    what = f"{replayed.recorded['agent']}, seed {replayed.recorded['seed']}"
    if not replayed.differences:
        count = len(replayed.recorded["metrics"])
        typer.echo(f"{what}: the same to the last bit, in {count} metrics.")
        return
    for name, (recorded, repeated) in replayed.differences.items():
        typer.echo(f"{what}: {name} was {recorded}, is {repeated}")
    raise typer.Exit(1)
