"""`throttllem doctor`."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from throttllem_env.live.doctor.findings import Report

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "What stands between this machine and control of its GPUs' clocks:",
        "[cyan]throttllem doctor[/cyan]",
        "After controller and guardian were both killed:",
        "[cyan]throttllem doctor --reset[/cyan]",
        "For a script:",
        "[cyan]throttllem doctor --json --ports 8000 | jq .ready[/cyan]",
    ]
)
MARKS = {
    "good": "[green]ok[/green]",
    "note": "[yellow]note[/yellow]",
    "problem": "[bold red]problem[/bold red]",
}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("doctor", epilog=EPILOG)(doctor)


def doctor(
    write: Annotated[
        bool, typer.Option("--write", help="Measure how long a change of clocks takes, by making some.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Give back GPUs whose controller and guardian were killed.")
    ] = False,
    restore_mhz: Annotated[
        str | None,
        typer.Option(metavar="MIN,MAX", help="What --write gives GPUs back with.", show_default="driver's"),
    ] = None,
    ports: Annotated[
        str | None,
        typer.Option(metavar="PORT,...", help="Ports that must be free.", show_default="looks at 8000-8002"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether GPU clocks can be controlled here, and if not, what to do about it.

    Looks at the driver, GPUs, rights, GPUs that were left behind, vLLM and ports. Nothing is changed without
    --write or --reset. Exit status: 0 ready, 1 there are problems, 2 wrong input.
    """
    from throttllem_env.live.doctor.examination import examine

    report = examine(_ports(ports), write=write, reset=reset, restore_mhz=_restore_mhz(restore_mhz))
    if as_json:
        import json

        typer.echo(json.dumps(report.plain(), indent=1))
    else:
        _print(report)
    raise typer.Exit(0 if report.ready else 1)


def _print(report: "Report") -> None:
    """For people: a line per finding, and what to do below."""
    from rich.text import Text

    from throttllem_env.cli.console import output

    console = output()
    width = max(len(finding.subject) for finding in report.findings)
    for finding in report.findings:
        line = Text.from_markup(f"{MARKS[finding.verdict]:}")
        line.pad_right(8 - len(line.plain))
        line.append(f"{finding.subject:<{width}}  {finding.text}")
        console.print(line, soft_wrap=True)
        for advice in finding.advice:
            console.print(Text(f"{'':8}{'':{width}}  → {advice}", style="dim"), soft_wrap=True)
    console.print("\nready" if report.ready else "\nnot ready: see the problems above", style="bold")


def _ports(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        ports = [int(port) for port in text.split(",")]
    except ValueError:
        raise ValueError(f"ports = {text!r}: expected numbers such as 8000,8001") from None
    if wrong := [port for port in ports if not 1 <= port <= 65535]:
        raise ValueError(f"ports: {wrong[0]}: expected 1 to 65535")
    return ports


def _restore_mhz(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        low, high = (int(mhz) for mhz in text.split(","))
    except ValueError:
        raise ValueError(f"restore_mhz = {text!r}: expected MIN,MAX such as 210,1410") from None
    if not 0 < low <= high:
        raise ValueError(f"restore_mhz = {text!r}: expected MIN,MAX with 0 < MIN <= MAX")
    return low, high
