"""`throttllem replay`: a trace as load for a running server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from throttllem_env.live.replay import ReplayRecord, ReplaySettings
    from throttllem_env.live.replay_report import ReplayReport
    from throttllem_env.traces import Trace

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "A minute of an Azure-like chat load at a tenth of its speed:",
        "[cyan]throttllem replay --url http://127.0.0.1:8000 --trace azure-conv-like --speed 0.1[/cyan]",
        "Five minutes of a recorded hour, with a line per request in a file:",
        "[cyan]throttllem replay --url http://127.0.0.1:8000 --trace azure-2023-conv --duration 300 "
        "--json out/replay.json[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("replay", epilog=EPILOG)(replay)


def replay(
    url: Annotated[str, typer.Option(help="An OpenAI-compatible server that speaks vLLM's dialect.")],
    trace: Annotated[
        str, typer.Option(help="A file, or a name with parameters: see throttllem trace.")
    ] = "azure-conv-like",
    duration: Annotated[float, typer.Option(help="How long requests are sent, seconds of real time.")] = 60.0,
    speed: Annotated[float, typer.Option(help="2 plays the trace twice as fast.")] = 1.0,
    start: Annotated[float, typer.Option(min=0, help="Where in the trace to begin, seconds of it.")] = 0.0,
    model: Annotated[
        str | None, typer.Option(help="The model's name.", show_default="the server's first")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the server's key.", show_default="no key")
    ] = None,
    vocabulary: Annotated[
        int, typer.Option(help="Prompts are random token ids below this; every model has the first 500.")
    ] = 500,
    timeout: Annotated[float, typer.Option(help="For one request, seconds.")] = 600.0,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, and of a generated trace.")] = 0,
    allow_remote: Annotated[bool, typer.Option(help="Send load to another machine too.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write figures and every request to this file.")
    ] = None,
) -> None:
    """Send a trace's requests at their times, whatever became of the others, and measure.

    Prompts are random token ids; every answer has the recorded length. Latencies count from when a
    request was due; "lateness" is how much later this program sent it. Small figures there mean that
    the others can be trusted. Exit status: 0 all requests completed, 1 some did not, 2 wrong input.
    """
    from throttllem_env.cli.extras import needs_serve
    from throttllem_env.cli.keys import read_key
    from throttllem_env.traces import load_trace

    with needs_serve():
        from throttllem_env.live.replay import ReplaySettings
        from throttllem_env.live.replay_report import report
    key = read_key("api-key-file", api_key_file)
    settings = ReplaySettings(url, model, key, vocabulary, seed, timeout, allow_remote)
    part = _part(load_trace(trace, seed=seed), start, duration, speed)
    records = _played(part, settings)
    figures = report(records)
    _show(figures, part.name)
    if json_file:
        _write(json_file, figures, records)
    if figures.completed < figures.requests:
        raise typer.Exit(1)


def _part(trace: "Trace", start_s: float, duration_s: float, speed: float) -> "Trace":
    """What is played: `duration_s` seconds of real time from `start_s` of the trace on."""
    if not duration_s > 0:
        raise ValueError(f"duration = {duration_s:g}: expected a number above 0")
    part = trace.window(start_s, start_s + duration_s * speed).scaled(speed)
    if not len(part):
        raise ValueError(f"start = {start_s:g}, duration = {duration_s:g}: no request of {trace.name} there")
    return part


def _played(part: "Trace", settings: "ReplaySettings") -> "list[ReplayRecord]":
    """Play it under a progress bar."""
    import asyncio

    from throttllem_env.cli.console import progress_bar
    from throttllem_env.live.files import allow_many_files
    from throttllem_env.live.replay import replay as play

    allow_many_files()
    with progress_bar() as bar:
        task = bar.add_task(f"{len(part):,} requests in {part.duration_s:,.0f} s", total=len(part))
        return asyncio.run(play(part, settings, lambda record: bar.advance(task)))


def _show(figures: "ReplayReport", name: str) -> None:
    from throttllem_env.cli.console import facts, output, table

    console = output()
    pairs = [
        ("requests", f"{figures.requests:,}"),
        ("completed", f"{figures.completed:,}"),
        ("tokens", f"{figures.tokens:,} ({figures.tokens_per_s:,.0f} per second)"),
        ("duration", f"{figures.duration_s:,.1f} s"),
    ]
    pairs += [("failed", f"{count:,} × {error}") for error, count in list(figures.errors.items())[:5]]
    console.print(facts(pairs, f"\n{name}"))
    rows = [[kind, *(f"{1e3 * v:,.1f}" for v in values)] for kind, values in figures.latencies_s.items()]
    console.print(table(["ms", "p50", "p90", "p99", "max"], rows, "\nLatencies"))


def _write(path: Path, figures: "ReplayReport", records: "list[ReplayRecord]") -> None:
    import json

    from throttllem_env.evaluation.output import prepare_folder
    from throttllem_env.live.replay_report import record_entry

    prepare_folder(path.parent)
    document = {"figures": figures.entry(), "requests": [record_entry(record) for record in records]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    typer.echo(f"Wrote:\n  {path}")
