"""`throttllem bench`: how fast it is on this machine."""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from throttllem_env.evaluation.bench_decision import DecisionLatency

EPILOG = "\n\n".join(
    [
        "[bold]Example[/bold]",
        "[cyan]throttllem bench --running 16,64,256 --json bench.json[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench", epilog=EPILOG)(bench)


def bench(
    agents: Annotated[str, typer.Option(help="Controllers, separated by commas.")] = "throttllem",
    scenario: Annotated[str, typer.Option(help="A shipped scenario, or a YAML file.")] = "llama2-13b-a100",
    running: Annotated[str, typer.Option(help="Running requests, separated by commas.")] = "16,64,256",
    decisions: Annotated[int, typer.Option(min=10, help="States to decide in.")] = 500,
    repeats: Annotated[int, typer.Option(min=1, help="Passes over them.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.")
    ] = None,
) -> None:
    """Time single decisions of controllers, by how many requests run.

    Each figure is the median over the passes; the range over the passes stands beside it. The compiled part
    is that of the reference controller: lengths, projection and search.
    Exit status: 0 done, 1 a file could not be written, 2 wrong input, 130 interrupted.
    """
    import json

    from throttllem_env.cli.console import output, progress_bar, table
    from throttllem_env.evaluation.bench_decision import compiled_latency, decision_latency
    from throttllem_env.evaluation.settings import split_agents
    from throttllem_env.scenario import load_scenario

    loaded, counts, specs = load_scenario(scenario), _counts(running), split_agents(agents)
    found = []
    with progress_bar() as bar:
        task = bar.add_task("timing decisions", total=(len(specs) + 1) * len(counts))
        for agent in specs:
            for count in counts:
                found.append(decision_latency(agent, loaded, count, decisions=decisions, repeats=repeats))
                bar.advance(task)
        for count in counts:
            found.append(compiled_latency(loaded, count, decisions=decisions, repeats=repeats))
            bar.advance(task)
    heads = ["agent", "running", "decisions", "p50 ms", "range", "p99 ms", "range"]
    output().print(table(heads, [_cells(one) for one in found], f"\nOne decision, {loaded.name}"))
    if json_file:
        document = {
            "scenario": loaded.name,
            "version": loaded.version,
            "decision": [_entry(f) for f in found],
        }
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _counts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"running = {text!r}: expected whole numbers such as 16,64,256") from None


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
