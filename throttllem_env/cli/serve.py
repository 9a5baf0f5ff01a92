"""`throttllem serve`: a gateway before running servers, or before servers of its own under control."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from throttllem_env.live.control_plan import ControlPlan
    from throttllem_env.live.node_plan import NodePlan
    from throttllem_env.live.settings import GatewaySettings

GATEWAY, CONTROL, GPUS, TRUST = "Gateway", "Control", "Servers and GPUs", "Trust"

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "In front of a vLLM server on this machine; it observes and routes, and sets nothing:",
        "[cyan]throttllem serve --upstream http://127.0.0.1:8001 --port 8000[/cyan]",
        "In front of two, for other machines too; kill -USR1 switches between them:",
        "[cyan]throttllem serve --upstream http://127.0.0.1:8001,http://127.0.0.1:8002 --host 0.0.0.0 "
        "--api-key-file key.txt[/cyan]",
        "On a laptop: vLLM on emulated A100s, with throttLL'eM setting their clocks and sizes:",
        "[cyan]throttllem serve --emulate --agent throttllem[/cyan]",
        "On GPUs, first as a dry run, which says what the agent would do; then for real:",
        "[cyan]throttllem serve --model /models/llama-2-13b --scenario llama2-13b-a100[/cyan]",
        "[cyan]throttllem serve --model /models/llama-2-13b --scenario llama2-13b-a100 --gpus nvml[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve", epilog=EPILOG)(serve)


def serve(
    upstream: Annotated[
        str | None,
        typer.Option(
            help="One or two OpenAI-compatible servers that run already, separated by a comma.",
            metavar="URL",
            show_default="servers of its own",
            rich_help_panel=GATEWAY,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to bind to; others than loopback need a key.", rich_help_panel=GATEWAY),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=GATEWAY)
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the key that clients present.",
            show_default="no key",
            rich_help_panel=GATEWAY,
        ),
    ] = None,
    upstream_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the key that the upstreams want.",
            show_default="the client's own",
            rich_help_panel=GATEWAY,
        ),
    ] = None,
    max_running: Annotated[
        int | None,
        typer.Option(
            help="Requests at the active server at once.",
            show_default="256; with servers of its own, vLLM's queue takes them all",
            rich_help_panel=GATEWAY,
        ),
    ] = None,
    max_queued: Annotated[
        int,
        typer.Option(help="Requests that wait before it; further ones get 429.", rich_help_panel=GATEWAY),
    ] = 1024,
    max_body_mib: Annotated[
        float, typer.Option(help="Largest request, MiB; larger ones get 413.", rich_help_panel=GATEWAY)
    ] = 16.0,
    timeout: Annotated[
        float,
        typer.Option(help="From a request's arrival to its last byte, seconds.", rich_help_panel=GATEWAY),
    ] = 600,
    drain: Annotated[
        float,
        typer.Option(help="How long running requests may go on after a stop, s.", rich_help_panel=GATEWAY),
    ] = 30,
    e2e_slo: Annotated[
        float | None,
        typer.Option(
            help="E2E SLO that attainment is counted against, seconds.",
            show_default="the scenario's; none with --upstream",
            rich_help_panel=GATEWAY,
        ),
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="What is served on what: a name from [cyan]throttllem scenarios[/cyan], or a YAML file.",
            rich_help_panel=CONTROL,
        ),
    ] = "llama2-13b-a100",
    agent: Annotated[
        str,
        typer.Option(help="Who decides about clock and size: name:key=value.", rich_help_panel=CONTROL),
    ] = "throttllem",
    slo_scale: Annotated[
        float, typer.Option(help="Multiplies the scenario's latency SLOs.", rich_help_panel=CONTROL)
    ] = 1.0,
    past: Annotated[
        str,
        typer.Option(
            help="Requests that output lengths are learned from: a trace's file or name.",
            rich_help_panel=CONTROL,
        ),
    ] = "azure-conv-like",
    model: Annotated[
        str | None,
        typer.Option(help="Weights that vLLM serves: a folder or a name.", rich_help_panel=GPUS),
    ] = None,
    vllm_args: Annotated[
        str,
        typer.Option(
            help="Further arguments of vLLM, as one string.",
            metavar="ARGS",
            rich_help_panel=GPUS,
        ),
    ] = "",
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="vLLM on emulated GPUs, at the speed and power of the scenario's: no GPU, no weights.",
            rich_help_panel=GPUS,
        ),
    ] = False,
    gpus: Annotated[
        str | None,
        typer.Option(
            help="Who sets clocks: observe (nobody: a dry run), nvml, zeusd (without root), or emulated.",
            show_default="observe; emulated with --emulate",
            rich_help_panel=GPUS,
        ),
    ] = None,
    gpu_ids: Annotated[
        str | None,
        typer.Option(
            help="GPUs that may be used: indices or UUIDs, separated by commas.",
            show_default="all that are visible",
            rich_help_panel=GPUS,
        ),
    ] = None,
    logs: Annotated[Path, typer.Option(help="Folder for the servers' logs.", rich_help_panel=GPUS)] = Path(
        "out/serve"
    ),
    device_file: Annotated[
        Path | None,
        typer.Option(
            help="File of emulated GPUs to use, such as one that a driver's double reads.",
            show_default="a new one",
            rich_help_panel=GPUS,
        ),
    ] = None,
    restore_mhz: Annotated[
        str | None,
        typer.Option(
            help="Lowest and highest clock that GPUs are given back with.",
            metavar="MIN,MAX",
            show_default="the driver's default",
            rich_help_panel=TRUST,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Override clocks that somebody else seems to have locked.", rich_help_panel=TRUST
        ),
    ] = False,
    server_user: Annotated[
        str | None,
        typer.Option(
            help="Whose the vLLM servers' processes are, where serve is root's.",
            metavar="NAME",
            show_default="the same user's",
            rich_help_panel=TRUST,
        ),
    ] = None,
    watchdog: Annotated[
        str,
        typer.Option(
            help="Bounds of the SLO watchdog, such as bound=0.95,window_s=120; none for no watchdog.",
            rich_help_panel=TRUST,
        ),
    ] = "bound=0.9,window_s=60,quiet_s=30,max_age_s=10",
) -> None:
    """Serve an LLM with the clock and size that an agent chooses, or observe servers that run already.

    Clients use it as they use vLLM: /v1/completions, /v1/chat/completions, /v1/models; /metrics is for
    Prometheus. With [cyan]--upstream[/cyan] it passes requests on to running servers, with limits, books and
    metrics, and controls nothing. Without, it starts vLLM itself, and [cyan]--agent[/cyan] decides: as a dry
    run at first, and with [cyan]--gpus nvml[/cyan] for real. Whatever goes wrong with control leads to the
    top clock, and however it ends, GPUs get their normal clocks back.
    SIGTERM or Ctrl-C lets running requests complete; a second one cuts them off.
    Exit status: 0 stopped, 1 it could not bind or start, 2 wrong input, 130 interrupted while starting.
    """
    from throttllem_env.cli.extras import needs_serve
    from throttllem_env.cli.keys import read_key
    from throttllem_env.live.settings import MIB, GatewaySettings

    running = max_running or (256 if upstream is not None else OWN_MAX_RUNNING)
    settings = GatewaySettings(
        () if upstream is None else tuple(url.strip() for url in upstream.split(",") if url.strip()),
        host=host,
        port=port,
        api_key=read_key("api-key-file", api_key_file),
        upstream_key=read_key("upstream-key-file", upstream_key_file),
        max_body_bytes=int(max_body_mib * MIB),
        max_running=running,
        max_queued=max_queued,
        request_timeout_s=timeout,
        drain_s=drain,
        e2e_slo_s=e2e_slo,
    )
    with needs_serve():
        from throttllem_env.live.files import allow_many_files
    allow_many_files()
    if upstream is not None:
        _refuse_beside_upstream(
            upstream, model=model, emulate=emulate, gpus=gpus, **{"server-user": server_user}
        )
        _observe(settings)
        return
    from throttllem_env.evaluation.output import prepare_folder

    prepare_folder(logs)
    node = _node_plan(
        scenario, logs, gpus, emulate, model, vllm_args, gpu_ids, device_file, restore_mhz, force, server_user
    )
    _control(settings, node, _control_plan(agent, watchdog, slo_scale, past))


SHOWN_CHARACTERS = 200
"""Of a line that a server says while it starts; its log has all of it."""

OWN_MAX_RUNNING = 65_536
"""Requests beyond the gate where vLLM's own queue holds them, as in the simulators."""


def _refuse_beside_upstream(upstream: str, **options: object) -> None:
    """Options that servers which run already leave no room for."""
    if not upstream.strip(" ,"):
        raise ValueError("upstream is empty: expected one or two addresses such as http://127.0.0.1:8001")
    for name, value in options.items():
        if value:
            raise ValueError(
                f"--{name} does not go with --upstream: servers that run already are only observed"
            )


def _observe(settings: "GatewaySettings") -> None:
    import asyncio

    from throttllem_env.cli.extras import needs_serve

    with needs_serve():
        from throttllem_env.live.server import serve as run
    _say("This gateway observes and routes; it controls nothing.")
    asyncio.run(run(settings, _say))


def _node_plan(
    scenario: str,
    logs: Path,
    gpus: str | None,
    emulate: bool,
    model: str | None,
    vllm_args: str,
    gpu_ids: str | None,
    device_file: Path | None,
    restore_mhz: str | None,
    force: bool,
    server_user: str | None,
) -> "NodePlan":
    import shlex

    from throttllem_env.live.node_plan import NodePlan

    return NodePlan(
        scenario,
        logs,
        gpus or ("emulated" if emulate else "observe"),
        emulate,
        model,
        tuple(shlex.split(vllm_args)),
        _gpu_ids(gpu_ids),
        device_file,
        _clock_range(restore_mhz),
        force,
        server_user=server_user,
    )


def _gpu_ids(text: str | None) -> tuple[int | str, ...] | None:
    """Indices as numbers, UUIDs as they are."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _clock_range(text: str | None) -> tuple[int, int] | None:
    """Two clocks, MHz."""
    if text is None:
        return None
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"restore-mhz = {text!r}: expected two clocks such as 210,1410") from None
    return low, high


def _control_plan(agent: str, watchdog: str, slo_scale: float, past: str) -> "ControlPlan":
    from throttllem_env.controller import make_controller
    from throttllem_env.live.control_plan import ControlPlan

    spec = agent if watchdog in ("none", "") else f"{agent}+watchdog:{watchdog}"
    make_controller(spec)  # before anything is started
    return ControlPlan(spec, slo_scale, past=past)


def _control(settings: "GatewaySettings", node: "NodePlan", control: "ControlPlan") -> None:
    import asyncio

    from throttllem_env.cli.extras import needs_serve

    with needs_serve():
        from throttllem_env.live.service import serve_controlled
    with _explained():
        asyncio.run(serve_controlled(settings, node, control, _say))


@contextmanager
def _explained() -> "Iterator[None]":
    """What servers and drivers refuse is no wrong input and no bug, and ends with status 1."""
    from throttllem_env.gpu.actuator import ActuatorError
    from throttllem_env.serving.vllm.servers import ServerError

    try:
        yield
    except (ActuatorError, ServerError) as error:
        raise OSError(str(error)) from None


def _say(line: str) -> None:
    """A line on stderr, with the time."""
    from datetime import datetime

    first, *more = line.split("\n")
    shown = first if len(first) <= SHOWN_CHARACTERS else first[:SHOWN_CHARACTERS] + " ..."
    typer.echo("\n".join([f"{datetime.now().astimezone():%H:%M:%S} {shown}", *more]), err=True)
