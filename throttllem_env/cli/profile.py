"""`throttllem profile`: measure how long a backend's iterations take, at every size and clock."""

from pathlib import Path
from typing import Annotated

import typer

from throttllem_env.cli.console import counting_bar

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "Every size at every clock, on two processes; run it again after an interruption to go on:",
        "[cyan]throttllem profile --scenario llama2-13b-a100 --out profile.parquet --jobs 2[/cyan]",
        "A quick one, of one size at nine clocks:",
        "[cyan]throttllem profile --sizes 2 --clocks 9 --out small.parquet[/cyan]",
        "Live servers, vLLM on emulated GPUs, one size at four clocks, in three minutes:",
        "[cyan]throttllem profile --backend vllm --sizes 2 --clocks 4 --seconds 30 --out live.parquet[/cyan]",
        "Then fit M to it:",
        "[cyan]throttllem fit profile.parquet --out out/ips[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("profile", epilog=EPILOG)(profile)


def profile(
    scenario: Annotated[
        str,
        typer.Option(help="What is served: a name from [cyan]throttllem scenarios[/cyan], or a YAML file."),
    ] = "llama2-13b-a100",
    backend: Annotated[
        str,
        typer.Option(
            help="What is measured: simulator, reference (the plain one), vllm-emulated (vLLM's engine), or "
            "vllm: live servers, on emulated GPUs or, with vllm:gpus=nvml,model=FOLDER, on real ones."
        ),
    ] = "simulator",
    out: Annotated[Path, typer.Option(help="Parquet file to write.")] = Path("out/profile.parquet"),
    sizes: Annotated[
        str | None,
        typer.Option(help="Instance sizes, separated by commas.", show_default="all of the scenario"),
    ] = None,
    clocks: Annotated[
        int | None,
        typer.Option(help="How many clocks, evenly spaced, lowest and top included.", show_default="all"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds load and measurement noise.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    seconds: Annotated[
        float, typer.Option(help="On live servers: how long each size is measured at each clock.")
    ] = 60.0,
) -> None:
    """Measure iteration times at every size and clock, for M to be fitted to.

    An interrupted profile goes on where it stopped when the command is given again.
    Exit status: 0 done, 1 a file could not be written, 2 wrong input, 130 interrupted.
    """
    from throttllem_env.evaluation.profiling import profile_backend
    from throttllem_env.scenario import load_scenario
    from throttllem_env.serving import is_real_time, require_backend

    require_backend(backend)
    loaded = load_scenario(scenario)
    command = f"throttllem profile --scenario {scenario} --backend {backend} --out {out}"
    command += f" --sizes {sizes}" if sizes else ""
    command += f" --clocks {clocks}" if clocks else ""
    command += f" --seed {seed} --jobs {jobs}"
    command += f" --seconds {seconds:g}" if is_real_time(backend) else ""
    with counting_bar("tp*.parquet", "cells") as on_start:
        made = profile_backend(
            loaded,
            out,
            backend=backend,
            sizes=_sizes(sizes),
            clocks=clocks,
            seed=seed,
            jobs=jobs,
            seconds=seconds,
            command=command,
            on_start=on_start,
        )
    rows = f"{len(made.decode):,} decode iterations, {len(made.windows):,} one-second windows"
    typer.echo(f"{rows}\nWrote:\n  {out}")


def _sizes(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"sizes = {text!r}: expected whole numbers, separated by commas") from None
