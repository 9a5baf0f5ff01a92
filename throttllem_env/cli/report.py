"""`throttllem report`: what became of a comparison."""

from pathlib import Path
from typing import Annotated

import typer

from throttllem_env.cli.extras import needs

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "A page for people, which opens without a network, with your price of a kWh and your grid:",
        "[cyan]throttllem report out/compare --price-per-kwh 0.25 --currency EUR --grid-g-per-kwh 350[/cyan]",
        "A page of a suite, with links to the pages of its cases that were made before:",
        "[cyan]throttllem report out/paper[/cyan]",
        "Does the third run of a comparison come out the same, to the last bit?",
        "[cyan]throttllem report --replay out/compare/results.json --entry 2[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("report", epilog=EPILOG)(report)


def report(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="What [cyan]compare[/cyan] wrote.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page.", show_default="report.html in the folder, index.html for a suite"),
    ] = None,
    price_per_kwh: Annotated[
        float | None, typer.Option(help="What a kWh costs you.", show_default="no costs")
    ] = None,
    currency: Annotated[str, typer.Option(help="Of that price.")] = "EUR",
    grid_g_per_kwh: Annotated[
        float | None,
        typer.Option(help="Grams of CO2e that a kWh of your grid emits.", show_default="no emissions"),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="A results.json: run one of its entries again instead.", show_default=False),
    ] = None,
    entry: Annotated[int, typer.Option(help="Which entry of its runs, from 0 on.")] = 0,
) -> None:
    """Make a page of a comparison or of a suite, or run one of its entries again.

    With --replay, every metric is compared to the last bit. Exit status: 0 done, and the same came out;
    1 something differs; 2 wrong input.
    """
    if (folder is None) == (replay is None):
        raise ValueError("report: give a folder to make a page of, or --replay and a results.json")
    if replay is not None:
        run_again(replay, entry)
        return
    assert folder is not None
    with needs("report"):
        from throttllem_env.evaluation.report import Tariff, is_suite, write_report, write_suite_report

        if is_suite(folder):
            if (price_per_kwh, grid_g_per_kwh) != (None, None):
                raise ValueError(f"report: {folder} holds a suite; costs are on the pages of its cases")
            page = write_suite_report(folder, out or folder / "index.html")
        else:
            tariff = Tariff(price_per_kwh, currency, grid_g_per_kwh)
            page = write_report(folder, out or folder / "report.html", tariff)
    typer.echo(f"Wrote {page}, {page.stat().st_size / 1e6:.1f} MB")


def run_again(path: Path, entry: int) -> None:
    """Run an entry again and say what differs.

    Args:
        path: A results.json.
        entry: Which of its runs.

    Raises:
        typer.Exit: Something differs.
    """
    from throttllem_env.evaluation.replay import replay_entry

    replayed = replay_entry(path, entry)
    what = f"{replayed.recorded['agent']}, seed {replayed.recorded['seed']}"
    if not replayed.differences:
        count = len(replayed.recorded["metrics"])
        typer.echo(f"{what}: the same to the last bit, in {count} metrics.")
        return
    for name, (recorded, repeated) in replayed.differences.items():
        typer.echo(f"{what}: {name} was {recorded}, is {repeated}")
    raise typer.Exit(1)
