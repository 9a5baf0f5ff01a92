"""`throttllem fit`: fit M to a profile, and say how good it is."""

from pathlib import Path
from typing import Annotated, Any

import typer

EPILOG = "\n\n".join(
    [
        "[bold]Example[/bold]",
        "[cyan]throttllem profile --scenario llama2-13b-a100 --out profile.parquet --jobs 2[/cyan]",
        "[cyan]throttllem fit profile.parquet --out out/ips[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("fit", epilog=EPILOG)(fit)


def fit(
    profile: Annotated[
        Path, typer.Argument(metavar="PROFILE", help="What [cyan]throttllem profile[/cyan] wrote.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model, its table and its report.")] = Path(
        "out/ips"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Draws the rows that are held out.")] = 0,
) -> None:
    """Fit M, the predictor of iterations per second, and report its errors on held-out rows.

    Writes model.json, trees-tp*.txt (LightGBM's text format), table.npz, report.json and report.md.
    Exit status: 0 done, 1 a file could not be written, 2 wrong input, 130 interrupted.
    """
    from throttllem_env.cli.console import progress_bar
    from throttllem_env.evaluation.output import prepare_folder
    from throttllem_env.prediction.ips import fit_profile, read_profile

    measured = read_profile(profile)
    prepare_folder(out)
    command = f"throttllem fit {profile} --out {out} --seed {seed}"
    with progress_bar() as bar:
        task = bar.add_task("checking the profile", total=None)

        def progress(text: str) -> None:
            bar.update(task, description=text)

        report = fit_profile(measured, out, seed=seed, command=command, progress=progress)
    show(report)
    typer.echo("Wrote:")
    for path in sorted(out.iterdir()):
        if path.name in {"model.json", "table.npz", "report.json", "report.md"} or path.suffix == ".txt":
            typer.echo(f"  {path}")


def show(report: dict[str, Any]) -> None:
    """Print the scores against the noise-free rate, where it is known, else against the measured one.

    Args:
        report: As in `report.json`.
    """
    from throttllem_env.cli.console import output, table
    from throttllem_env.prediction.ips.report import SCORE_HEADS, score_cells

    known = any(row["against"] == "noise-free" for row in report["scores"])
    against = "noise-free" if known else "measured"
    rows = [[row["model"], *score_cells(row)] for row in report["scores"] if row["against"] == against]
    title = f"\nErrors on held-out rows, against the {against} rate"
    console = output()
    console.print(table(["predictor", *SCORE_HEADS], rows, title))
    cost = report["table"]
    console.print(
        f"A lookup: {cost['lookup_us']:.1f} µs; of 1000 iterations: {cost['lookup_1000_us']:.1f} µs",
        markup=False,
    )
