"""`throttllem trace`: describe, generate and fetch traces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from throttllem_env.traces import TraceSummary

app = typer.Typer(
    help="Look at traces of requests, generate them, fetch published ones.",
    epilog="\n\n".join(
        [
            "[bold]Names:[/bold] azure-conv-like, azure-code-like, poisson, bursty (generated); "
            "azure-2023-conv, azure-2023-code (published, to be fetched once).",
            "[bold]Files:[/bold] Azure 2023/2024 CSV, BurstGPT CSV, Mooncake JSON lines, Parquet; "
            "recognised by their content.",
        ]
    ),
    rich_markup_mode="rich",
)

Spec = Annotated[str, typer.Argument(metavar="TRACE", help="A file, or a name with parameters.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of a generated trace.")]


@app.callback(invoke_without_command=True)
def traces(ctx: typer.Context) -> None:
    """Look at traces of requests, generate them, fetch published ones."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command(
    "describe",
    epilog="\n\n".join(
        [
            "[bold]Examples[/bold]",
            "[cyan]throttllem trace describe azure-conv-like[/cyan]",
            "[cyan]throttllem trace describe poisson:rate_rps=5,duration_s=600 --plot poisson.png[/cyan]",
            "[cyan]throttllem trace describe AzureLLMInferenceTrace_conv.csv[/cyan]",
        ]
    ),
)
def describe(
    trace: Spec,
    seed: Seed = 0,
    plot: Annotated[
        Path | None,
        typer.Option(help="PNG file to draw.", show_default="out/trace-NAME.png"),
    ] = None,
) -> None:
    """Print rates and lengths of a trace, and plot them."""
    from throttllem_env.cli.console import facts, output, table
    from throttllem_env.evaluation.output import prepare_folder
    from throttllem_env.traces import describe as summarize
    from throttllem_env.traces import load_trace, plot_trace

    loaded = load_trace(trace, seed=seed)
    summary = summarize(loaded)
    console = output()
    console.print(facts(_arrival_facts(summary), f"\n{summary.name}"))
    console.print(table(["tokens", "mean", "p50", "p90", "p99", "max"], _length_rows(summary), "\nLengths"))
    path = plot or Path("out") / f"trace-{Path(summary.name).stem}.png"
    prepare_folder(path.parent)
    plot_trace(loaded, path)
    typer.echo(f"Wrote:\n  {path}")


def _arrival_facts(summary: "TraceSummary") -> list[tuple[str, str]]:
    return [
        ("requests", f"{summary.requests:,}"),
        ("duration", f"{summary.duration_s:,.1f} s"),
        ("mean rate", f"{summary.mean_rate_rps:.3f} requests/s"),
        ("busiest 60 s", f"{summary.peak_rate_rps:.3f} requests/s"),
        ("inter-arrival CV", f"{summary.interarrival_cv:.2f} (1 for Poisson)"),
        ("seconds without arrival", f"{summary.empty_seconds:.1%}"),
        ("rank correlation of prompt and output", f"{summary.rank_correlation:.2f}"),
    ]


def _length_rows(summary: "TraceSummary") -> list[list[str]]:
    return [
        [name, *(f"{value:,.0f}" for value in (kind.mean, kind.p50, kind.p90, kind.p99, kind.max))]
        for name, kind in (("prompt", summary.prompt), ("output", summary.output))
    ]


@app.command(
    "generate",
    epilog="\n\n".join(
        [
            "[bold]Examples[/bold]",
            "[cyan]throttllem trace generate azure-conv-like --seed 7 --out conv-7.parquet[/cyan]",
            "[cyan]throttllem trace generate bursty:rate_on_rps=12,mean_on_s=30[/cyan]",
        ]
    ),
)
def generate(
    trace: Annotated[str, typer.Argument(metavar="NAME", help="A generator, with parameters after a colon.")],
    duration: Annotated[float, typer.Option(help="Length, seconds.")] = 3600.0,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Parquet file to write.", show_default="out/NAME-seed-SEED.parquet")
    ] = None,
) -> None:
    """Generate a trace and write it as Parquet."""
    from throttllem_env.evaluation.output import prepare_folder
    from throttllem_env.suggest import nearest
    from throttllem_env.traces import SYNTHETIC_PARAMETERS, load_trace, parse_spec, write_parquet

    name, given = parse_spec(trace)
    if name not in SYNTHETIC_PARAMETERS:
        raise ValueError(f"generator = {name!r}: unknown; {nearest(name, SYNTHETIC_PARAMETERS)}")
    # What the name says wins, as it does wherever a trace is named.
    parameters = {"duration_s": f"{duration:g}", "seed": str(seed)} | given
    made = load_trace(f"{name}:" + ",".join(f"{key}={value}" for key, value in parameters.items()))
    path = out or Path("out") / f"{name}-seed-{parameters['seed']}.parquet"
    prepare_folder(path.parent)
    write_parquet(made, path)
    typer.echo(f"{len(made):,} requests in {made.duration_s:,.0f} s\nWrote:\n  {path}")


@app.command(
    "fetch",
    epilog="\n\n".join(
        [
            "[bold]Examples[/bold]",
            "[cyan]throttllem trace fetch azure-2023-conv[/cyan]",
            "[cyan]throttllem compare --trace azure-2023-conv[/cyan]",
        ]
    ),
)
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="azure-2023-conv or azure-2023-code.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Where to put it.", show_default="$THROTTLLEM_CACHE, else ~/.cache/throttllem"),
    ] = None,
) -> None:
    """Download a published trace from its publisher and check its SHA-256."""
    from throttllem_env.cli.console import progress_bar
    from throttllem_env.traces import PUBLISHED_TRACES, fetch_trace

    with progress_bar() as bar:
        task = bar.add_task(name, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        path = fetch_trace(name, folder=folder, progress=report)
    entry = PUBLISHED_TRACES[name]
    typer.echo(f"Licence: {entry.licence}\nCitation: {entry.citation}\nWrote:\n  {path}")
