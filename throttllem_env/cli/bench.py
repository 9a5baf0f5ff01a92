"""`throttllem bench`: how fast it is on this machine."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from throttllem_env.evaluation.bench.decision import DecisionLatency

PARTS = ("simulator", "environment", "vector", "features", "decision", "start-up", "training")
DEFAULT_PARTS = ",".join(PARTS[:-1])
MINIBATCHES = (64, 256)
"""Stable-Baselines3's default, and a size that is common with many environments."""

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "All but the training, on a recorded trace, with the figures in a file:",
        "[cyan]throttllem bench --trace azure-2023-conv --json bench.json[/cyan]",
        "Single decisions of two controllers:",
        "[cyan]throttllem bench --parts decision --agents throttllem,throttllem-energy[/cyan]",
        "The simulator on long traces (ten million requests take 2 GB):",
        "[cyan]throttllem bench --parts simulator --requests 1e4,1e5,1e6,1e7[/cyan]",
    ]
)


class Choices(NamedTuple):
    """What the user chose.

    Attributes:
        scenario: As it was named.
        trace: As it was named.
        agents: Controllers to time.
        running: Running requests to time decisions and features at.
        num_envs: Sizes of vectors.
        requests: Lengths of long traces.
        steps: Steps of a single environment per repeat.
        decisions: States to decide in.
        repeats: How often everything is measured.
    """

    scenario: str
    trace: str
    agents: tuple[str, ...]
    running: list[int]
    num_envs: list[int]
    requests: list[int]
    steps: int
    decisions: int
    repeats: int


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench", epilog=EPILOG)(bench)


def bench(
    parts: Annotated[
        str, typer.Option(help=f"What to measure, separated by commas: {', '.join(PARTS)}.")
    ] = DEFAULT_PARTS,
    scenario: Annotated[str, typer.Option(help="A shipped scenario, or a YAML file.")] = "llama2-13b-a100",
    trace: Annotated[str, typer.Option(help="Requests for simulator and environments.")] = "azure-conv-like",
    agents: Annotated[
        str, typer.Option(help="Controllers whose decisions are timed, separated by commas.")
    ] = "throttllem",
    running: Annotated[str, typer.Option(help="Running requests, for decisions and features.")] = "16,64,256",
    num_envs: Annotated[str, typer.Option(help="Environments in a vector.")] = "1,16,256,1024",
    requests: Annotated[
        str,
        typer.Option(help="Long traces to simulate, each in a process of its own, whose memory is measured."),
    ] = "1e6",
    steps: Annotated[int, typer.Option(min=1, help="Steps of a single environment per repeat.")] = 20_000,
    decisions: Annotated[int, typer.Option(min=10, help="States to decide in.")] = 500,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.")
    ] = None,
) -> None:
    """Measure speed: simulator, environments, decisions, start-up.

    Each figure is the median over the repeats; their range stands beside it. The compiled part of a decision
    is that of the reference controller: lengths, projection and search.
    Exit status: 0 done, 1 a file could not be written, 2 wrong input, 130 interrupted.
    """
    import json

    from throttllem_env.evaluation.settings import split_agents

    chosen = Choices(
        scenario,
        trace,
        split_agents(agents),
        _counts("running", running),
        _counts("num_envs", num_envs),
        _counts("requests", requests),
        steps,
        decisions,
        repeats,
    )
    document = _document(_wanted(parts), chosen)
    if json_file:
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _wanted(parts: str) -> list[str]:
    from throttllem_env.suggest import nearest

    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    for part in wanted:
        if part not in PARTS:
            raise ValueError(f"parts = {part!r}: unknown; {nearest(part, PARTS)}")
    return wanted


def _document(wanted: Sequence[str], chosen: Choices) -> dict[str, Any]:
    """Measure part by part, printing each when it is done."""
    from throttllem_env.cli.console import output, progress_bar, table
    from throttllem_env.evaluation.bench.figures import rows
    from throttllem_env.scenario import load_scenario

    loaded = load_scenario(chosen.scenario)
    document: dict[str, Any] = {"scenario": loaded.name, "version": loaded.version, "trace": chosen.trace}
    for part in wanted:
        with progress_bar() as bar:
            measures = _measures(part, chosen)
            task = bar.add_task(f"measuring: {part}", total=len(measures))
            found: list[Any] = []
            for measure in measures:
                result = measure()
                found += result if isinstance(result, list) else [result]
                bar.advance(task)
        title = f"\n{part}: {loaded.name}"
        if part == "decision":
            heads = ["agent", "running", "decisions", "p50 ms", "range", "p99 ms", "range"]
            output().print(table(heads, [_cells(one) for one in found], title))
            document[part] = [_entry(one) for one in found]
        else:
            heads = ["figure", "median", "range", "unit", "note"]
            output().print(table(heads, rows(found), f"{title}, {chosen.trace}"))
            document[part] = [figure.entry() for figure in found]
    return document


def _measures(part: str, chosen: Choices) -> Sequence[Callable[[], Any]]:
    """The measurements of a part; each gives one figure or several."""
    from throttllem_env.evaluation.bench import decision, environment, simulator, start_up, training
    from throttllem_env.scenario import load_scenario

    loaded, trace, running, repeats = (
        load_scenario(chosen.scenario),
        chosen.trace,
        chosen.running,
        chosen.repeats,
    )
    if part == "simulator":
        long = [partial(simulator.at_scale, chosen.scenario, trace, n, repeats) for n in chosen.requests]
        return [partial(simulator.simulated_requests, loaded, trace, repeats), *long]
    if part == "environment":
        single = partial(environment.single_steps, loaded, trace, steps=chosen.steps, repeats=repeats)
        return [partial(single, random=True), partial(single, random=False)]
    if part == "vector":
        many = partial(environment.vector_steps, loaded, trace, repeats=repeats)
        return [
            partial(many, n, kind)
            for kind in (environment.COMPACT, environment.FULL)
            for n in chosen.num_envs
        ]
    if part == "features":
        return [partial(environment.feature_cost, loaded, n, repeats=repeats) for n in running]
    if part == "decision":
        how = {"decisions": chosen.decisions, "repeats": repeats}
        whole = [
            partial(decision.decision_latency, a, loaded, n, **how) for a in chosen.agents for n in running
        ]
        return whole + [partial(decision.compiled_latency, loaded, n, **how) for n in running]
    if part == "training":
        return [partial(training.training_share, repeats, size) for size in MINIBATCHES]
    return [partial(start_up.start_ups, repeats)]


def _counts(name: str, text: str) -> list[int]:
    try:
        return [int(float(part)) for part in text.split(",") if part]
    except ValueError:
        raise ValueError(f"{name} = {text!r}: expected whole numbers such as 16,64,256") from None


def _cells(one: "DecisionLatency") -> list[str]:
    """A row of the table."""
    cells = [one.agent, f"{one.running:.0f}", str(one.decisions)]
    for values in (one.p50_ms, one.p99_ms):
        cells += [f"{median(values):.3f}", f"{min(values):.3f} to {max(values):.3f}"]
    return cells


def _entry(one: "DecisionLatency") -> dict[str, Any]:
    return {
        "agent": one.agent,
        "running": one.running,
        "decisions": one.decisions,
        "p50_ms": one.p50_ms.tolist(),
        "p99_ms": one.p99_ms.tolist(),
    }
