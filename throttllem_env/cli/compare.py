"""`throttllem compare`: agents on the same trace, in a table, files, plots and TensorBoard."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from throttllem_env.evaluation.compare import Comparison
    from throttllem_env.evaluation.settings import Settings

AGENTS = "max-frequency,throttllem-frequency,throttllem-autoscale,throttllem"

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "The reference controller, its two halves, and the top clock, for a quarter of an hour:",
        "[cyan]throttllem compare --duration 900[/cyan]",
        "A recorded trace at 90 % of the rated load, five replicas on four processes:",
        "[cyan]throttllem compare --trace azure-2023-conv --load 0.9 --seeds 5 --jobs 4[/cyan]",
        "Parameters of an agent follow a colon:",
        "[cyan]throttllem compare --agents max-frequency,static-frequency:mhz=990,throttllem[/cyan]",
        "A watchdog that takes over when deadlines are missed, and telemetry that comes 5 s late:",
        "[cyan]throttllem compare --agents throttllem,throttllem+watchdog,throttllem+stale:delay_s=5+watchdog"
        "[/cyan]",
        "On a Ray cluster; interrupted, the same command goes on where it stopped:",
        "[cyan]throttllem compare --seeds 20 --cluster ray:10.0.0.1:6379[/cyan]",
        "All agents in all cases of a frozen suite, with a leaderboard:",
        "[cyan]throttllem compare --suite paper --jobs 2 --out out/paper[/cyan]",
        "The results in TensorBoard:",
        "[cyan]tensorboard --logdir out/compare/tb[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("compare", epilog=EPILOG)(compare)


def compare(
    scenario: Annotated[
        str,
        typer.Option(help="What is served: a name from [cyan]throttllem scenarios[/cyan], or a YAML file."),
    ] = "llama2-13b-a100",
    trace: Annotated[
        str,
        typer.Option(help="Requests: a file, a published trace, or a generator such as poisson:rate_rps=5."),
    ] = "azure-conv-like",
    agents: Annotated[
        str | None,
        typer.Option(
            help="Who decides: name or name:key=value, separated by commas; behind it, wrappers such as "
            "+watchdog or +stale:delay_s=5. Savings are against the first.",
            show_default="max-frequency, throttllem and its halves",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Replicas of the trace that every agent serves.")] = 1,
    load: Annotated[
        float, typer.Option(help="Busiest minute of the trace, as a share of the largest size's rated load.")
    ] = 1.0,
    slo_scale: Annotated[float, typer.Option(help="Multiplies the latency SLOs.")] = 1.0,
    length_predictor: Annotated[
        str, typer.Option(help="Predicts output lengths: learned, noisy-P (error of P %), or oracle.")
    ] = "learned",
    control: Annotated[
        str, typer.Option(help="Control points: own (each agent's), or events or period for all.")
    ] = "own",
    backend: Annotated[
        str,
        typer.Option(
            help="What is controlled: simulator, reference (the plain one), vllm-emulated (vLLM's engine), "
            "or vllm (its servers, in real time)."
        ),
    ] = "simulator",
    split: Annotated[
        str, typer.Option(help="Which 5-minute blocks of the trace: all, train, validation or test.")
    ] = "all",
    duration: Annotated[
        float | None,
        typer.Option(help="Serve only this many seconds of the trace.", show_default="all of it"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at once, each in a process of its own.", show_default="1, or all cores of the cluster"
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Run on a Ray cluster: ray (at RAY_ADDRESS) or ray:ADDRESS.", show_default="this machine"
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run again what is in the folder from an earlier time.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for results.json, results.md, plots, tb, and the runs.")
    ] = Path("out/compare"),
    bound: Annotated[
        float | None,
        typer.Option(
            help="Search for the best schedule in hindsight for so many seconds, and show how far all are "
            "from it and from a lower bound.",
            show_default="no bounds; for a suite those found earlier",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="Run a frozen suite instead (paper, full, smoke, or a YAML file), which says what is "
            "served; agents given here join its own.",
            show_default="none",
        ),
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(help="Folder with published traces for a suite.", show_default="the user's cache"),
    ] = None,
    leaderboard: Annotated[
        Path | None,
        typer.Option(help="Where a suite's leaderboard goes.", show_default="leaderboard.md in the folder"),
    ] = None,
) -> None:
    """Run agents on the same trace and compare energy and SLO attainment.

    Prints a table and writes results.json, results.md, plots and TensorBoard events. Every run is kept in
    the folder as soon as it is done; given again, the command runs only what is missing or was changed.
    Exit status: 0 done, 1 a run failed, 2 wrong input, 130 interrupted.
    """
    from throttllem_env.evaluation.bound.distance import bounded
    from throttllem_env.evaluation.output import prepare_folder, write_outputs
    from throttllem_env.evaluation.results import results
    from throttllem_env.evaluation.settings import Settings, split_agents

    check_bound(bound)
    if suite is not None:
        more = split_agents(agents) if agents else ()
        run_suite_with_progress(suite, out, traces, more, (jobs, cluster, fresh), bound, leaderboard)
        return
    settings = Settings(
        agents=split_agents(AGENTS if agents is None else agents),
        scenario=scenario,
        trace=trace,
        seeds=seeds,
        load=load,
        slo_scale=slo_scale,
        length_predictor=length_predictor,
        control=control,
        backend=backend,
        split=split,
        duration_s=duration,
        jobs=jobs,
        out=out,
        cluster=cluster,
        fresh=fresh,
    )
    settings.check()
    prepare_folder(out)
    comparison = run_with_progress(settings)
    document = results(comparison)
    if bound is not None and comparison.runs:
        document = bounded(comparison, document, bound, lambda text: typer.echo(text, err=True))
    show(document)
    show_paths(write_outputs(comparison, document, out))
    if comparison.failures:
        show_failures(comparison, out)
        raise typer.Exit(1)


def check_bound(seconds: float | None) -> None:
    """Refuse a time budget that is none, and say what a bound needs.

    Args:
        seconds: What `--bound` was given.

    Raises:
        ValueError: It is no number of at least 0, or SciPy is missing.
    """
    from importlib.util import find_spec

    if seconds is None:
        return
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"bound = {seconds}: must be a number of seconds, at least 0")
    if find_spec("scipy") is None:
        raise ValueError("bound: scipy is missing: pip install 'throttllem-env[fit]'")


def run_with_progress(settings: "Settings") -> "Comparison":
    """Run the comparison under a bar that moves with the simulated time of all runs.

    Args:
        settings: What to compare.
    """
    from rich.progress import Progress, TaskID

    from throttllem_env.cli.console import progress_bar
    from throttllem_env.evaluation.compare import compare as compare_agents
    from throttllem_env.evaluation.shares import Shares

    runs = len(settings.agents) * settings.seeds
    with Shares.of(runs) as shares:
        numbers = shares.open()

        class Bar(Progress):
            """Reads the shares whenever it is drawn, ten times a second."""

            def get_renderables(self) -> Any:
                done = int((numbers >= 1).sum())
                text = f"{done} of {runs} runs done"
                if self.task_ids:
                    self.update(TaskID(0), completed=float(numbers.sum()), description=text)
                return super().get_renderables()

        with progress_bar(Bar) as bar:
            bar.add_task("starting", total=runs)
            return compare_agents(settings, shares, lambda text: typer.echo(text, err=True))


def run_suite_with_progress(
    name: str,
    out: Path,
    traces: Path | None,
    agents: tuple[str, ...],
    how: tuple[int | None, str | None, bool],
    bound: float | None,
    page: Path | None,
) -> None:
    """Run a suite under a bar that counts cases, and write its leaderboard.

    Args:
        name: The suite.
        out: Folder for all cases.
        traces: Folder with published traces.
        agents: Further agents.
        how: Jobs, cluster, and whether to run again what is there.
        bound: Seconds of search for the best schedule of each case; None for no bounds.
        page: Where the leaderboard goes; None for the folder.
    """
    import shlex
    import sys

    from throttllem_env.cli.console import progress_bar
    from throttllem_env.evaluation.output import prepare_folder
    from throttllem_env.evaluation.suites import load_suite, run_suite
    from throttllem_env.evaluation.suites.leaderboard import leaderboard

    suite, page = load_suite(name), page or out / "leaderboard.md"
    prepare_folder(out)
    prepare_folder(page.parent)
    jobs, cluster, fresh = how
    with progress_bar() as bar:
        task = bar.add_task(f"suite {suite.name}, {len(suite.cases)} cases", total=len(suite.cases))
        cases = run_suite(
            suite, out, traces=traces, agents=agents, jobs=jobs, cluster=cluster, fresh=fresh,
            bound_s=bound, notify=lambda text: typer.echo(text, err=True),
            on_case=lambda done, total: bar.update(task, completed=done),
        )  # fmt: skip
        done = list(cases)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    page.write_text(leaderboard(suite, done, command), encoding="utf-8")
    typer.echo("Wrote:")
    for written in (page, *(result.folder for result in done)):
        typer.echo(f"  {written}")
    failures = [(r.case.name, f) for r in done for f in r.document["failures"]]
    for case, failure in failures:
        typer.echo(f"error: {case}: {failure['agent']} failed: {failure['error']}", err=True)
    if failures:
        raise typer.Exit(1)


def show(document: dict[str, Any]) -> None:
    """Print the table.

    Args:
        document: What `results` returned.
    """
    from rich.text import Text

    from throttllem_env.cli.console import output, table
    from throttllem_env.evaluation.tables import headers, rows, subtitle, targets

    console = output()
    console.print()
    console.print(Text(subtitle(document), style="dim"))
    console.print(Text(targets(document), style="dim"))
    console.print(table(headers(document), rows(document)))


def show_paths(paths: list[Path]) -> None:
    """Print what was written.

    Args:
        paths: Files and folders.
    """
    typer.echo("Wrote:")
    for path in paths:
        hint = f"   look at it with: tensorboard --logdir {path}" if path.is_dir() else ""
        typer.echo(f"  {path}{hint}")


def show_failures(comparison: "Comparison", out: Path) -> None:
    """Say on stderr which runs failed, and where their tracebacks are.

    Args:
        comparison: The runs.
        out: The folder with the results.
    """
    for failure in comparison.failures:
        typer.echo(f"error: {failure.agent}, seed {failure.seed} failed: {failure.error}", err=True)
    typer.echo(f"Tracebacks are in {out / 'results.json'} under failures.", err=True)
