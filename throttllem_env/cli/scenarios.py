"""`throttllem scenarios`: list, explain and freeze what can be served."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from throttllem_env.scenario import Scenario

app = typer.Typer(
    help="List the scenarios: what is served, on what, for whom.",
    rich_markup_mode="rich",
    epilog="\n\n".join(
        [
            "[bold]Examples[/bold]",
            "[cyan]throttllem scenarios[/cyan]",
            "[cyan]throttllem scenarios show llama2-13b-a100[/cyan]",
            "[cyan]throttllem scenarios freeze my-scenario.yaml --trace azure-2023-conv --jobs 4[/cyan]",
        ]
    ),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped scenario, or a YAML file.")]


@app.callback(invoke_without_command=True)
def scenarios(ctx: typer.Context) -> None:
    """List the scenarios: what is served, on what, for whom."""
    if ctx.invoked_subcommand is None:
        _list()


def _list() -> None:
    from throttllem_env.cli.console import output
    from throttllem_env.scenario import load_scenario, scenario_names

    console = output()
    for name in scenario_names():
        scenario = load_scenario(name)
        frozen = "" if scenario.frozen else "  [dim](not frozen yet)[/dim]"
        console.print(f"[bold]{name}[/bold]{frozen}")
        console.print(f"  {scenario.description}", markup=False)
    console.print("\nMore about one: throttllem scenarios show NAME", style="dim")


@app.command("show", epilog="[bold]Example:[/bold] [cyan]throttllem scenarios show llama2-13b-a100[/cyan]")
def show(name: Name) -> None:
    """Explain a scenario: every field with its meaning, rated loads and SLOs."""
    from throttllem_env.cli.console import facts, output, table, text_table
    from throttllem_env.scenario import load_scenario

    scenario = load_scenario(name)
    console = output()
    console.print(f"\n{scenario.name} version {scenario.version}\n{scenario.description}", markup=False)
    console.print(facts(_hardware(scenario), "\nModel and GPU"))
    console.print(facts(_targets(scenario), "\nSLOs"))
    heads = ["size (GPUs)", "KV blocks", "KV tokens", "rated load (requests/s)"]
    console.print(table(heads, list(_size_rows(scenario)), "\nInstance sizes"))
    console.print(text_table(["field", "value", "meaning"], list(_field_rows(scenario)), "All fields"))


def _hardware(scenario: "Scenario") -> list[tuple[str, str]]:
    gpu = scenario.gpu_spec
    clocks = f"{gpu.clocks_mhz[0]} to {gpu.top_mhz} MHz, {len(gpu.clocks_mhz)} clocks"
    return [
        ("model", scenario.model),
        ("GPU", f"{scenario.gpu}, {scenario.gpus_per_node} per node"),
        ("clocks", clocks),
    ]


def _targets(scenario: "Scenario") -> list[tuple[str, str]]:
    slo, power_w = scenario.slo, scenario.rated.reference_power_w
    missing = "not computed yet; run throttllem scenarios freeze"
    return [
        ("E2E", f"{slo.attainment:.0%} of requests within {slo.e2e_s:g} s" if slo.e2e_s else missing),
        ("TBT", f"mean at most {slo.tbt_s * 1e3:g} ms"),
        ("reference power", f"{power_w:g} W" if power_w else missing),
    ]


def _size_rows(scenario: "Scenario") -> Iterator[list[str]]:
    for size in scenario.sizes:
        blocks = scenario.kv_blocks(size)
        rated = scenario.rated.requests_rps.get(size)
        tokens = f"{blocks * scenario.engine.block_size:,}"
        yield [str(size), f"{blocks:,}", tokens, "–" if rated is None else f"{rated:g}"]


def _field_rows(model: Any, prefix: str = "") -> Iterator[list[str]]:
    """Every field, with the meaning that its class's docstring gives."""
    meanings = attribute_meanings(type(model).__doc__ or "")
    for name in type(model).model_fields:
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            yield from _field_rows(value, f"{prefix}{name}.")
        else:
            shown = "not set" if value is None else str(value)
            yield [f"{prefix}{name}", shown, meanings.get(name, "")]


def attribute_meanings(docstring: str) -> dict[str, str]:
    """Read the `Attributes:` section of a Google-style docstring.

    Args:
        docstring: As it stands in the source.

    Example:
        >>> from throttllem_env.scenario import EngineConfig
        >>> attribute_meanings(EngineConfig.__doc__ or "")["block_size"]
        'Tokens per KV block.'
    """
    _, _, section = docstring.partition("Attributes:\n")
    lines = section.splitlines()
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    meanings: dict[str, str] = {}
    name = ""
    for line in lines:
        if not line.strip():
            break
        if len(line) - len(line.lstrip()) == min(indents):
            name, _, text = line.strip().partition(": ")
            meanings[name] = text
        else:
            meanings[name] += f" {line.strip()}"
    return meanings


@app.command(
    "freeze",
    epilog="[bold]Example:[/bold] "
    "[cyan]throttllem scenarios freeze llama2-13b-a100 --trace azure-2023-conv --jobs 4[/cyan]",
)
def freeze(
    name: Name,
    trace: Annotated[str, typer.Option(help="Its train blocks give the request lengths: a file or a name.")],
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="YAML file to write.", show_default="out/scenarios/NAME.yaml")
    ] = None,
) -> None:
    """Compute rated loads, E2E SLO and reference power, and write them into a YAML file."""
    from throttllem_env.cli.console import progress_bar
    from throttllem_env.evaluation.calibration import freeze_scenario
    from throttllem_env.evaluation.output import prepare_folder
    from throttllem_env.scenario import load_scenario

    scenario = load_scenario(name)
    path = out or Path("out/scenarios") / f"{scenario.name}.yaml"
    prepare_folder(path.parent)
    with progress_bar() as bar:
        bar.add_task("searching rated loads", total=None)
        frozen = freeze_scenario(scenario, trace, jobs=jobs, out=path, progress=typer.echo)
    typer.echo(f"{frozen.name} version {frozen.version}\nWrote:\n  {path}")
