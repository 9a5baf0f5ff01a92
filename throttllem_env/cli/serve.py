"""`throttllem serve`: the gateway in front of one or two running servers."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/bold]",
        "In front of a vLLM server on this machine:",
        "[cyan]throttllem serve --upstream http://127.0.0.1:8001 --port 8000[/cyan]",
        "In front of two, for other machines too; kill -USR1 switches between them:",
        "[cyan]throttllem serve --upstream http://127.0.0.1:8001,http://127.0.0.1:8002 --host 0.0.0.0 "
        "--api-key-file key.txt[/cyan]",
    ]
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("serve", epilog=EPILOG)(serve)


def serve(
    upstream: Annotated[
        str, typer.Option(help="One or two OpenAI-compatible servers, separated by a comma.", metavar="URL")
    ],
    host: Annotated[
        str, typer.Option(help="Address to bind to; others than loopback need an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that clients must present.", show_default="no key")
    ] = None,
    upstream_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key that the upstreams want.", show_default="the client's own"),
    ] = None,
    max_running: Annotated[int, typer.Option(help="Requests at the upstreams at once.")] = 256,
    max_queued: Annotated[
        int, typer.Option(help="Requests that wait before them; further ones get 429.")
    ] = 1024,
    max_body_mib: Annotated[float, typer.Option(help="Largest request, MiB; larger ones get 413.")] = 16.0,
    timeout: Annotated[float, typer.Option(help="From a request's arrival to its last byte, seconds.")] = 600,
    drain: Annotated[float, typer.Option(help="How long running requests may go on after a stop, s.")] = 30,
    e2e_slo: Annotated[
        float | None,
        typer.Option(help="E2E SLO that attainment is counted against, seconds.", show_default="none"),
    ] = None,
) -> None:
    """Pass requests on to running servers, with limits, books and metrics.

    It observes and routes: it sets no GPU clock, and starts and stops no server, yet.
    Clients use it as they use vLLM: /v1/completions, /v1/chat/completions, /v1/models; /metrics is for
    Prometheus. SIGTERM or Ctrl-C lets running requests complete.
    Exit status: 0 stopped, 1 it could not bind, 2 wrong input.
    """
    import asyncio

    from throttllem_env.cli.extras import needs_serve
    from throttllem_env.cli.keys import read_key
    from throttllem_env.live.settings import MIB, GatewaySettings

    settings = GatewaySettings(
        tuple(url.strip() for url in upstream.split(",") if url.strip()),
        host=host,
        port=port,
        api_key=read_key("api-key-file", api_key_file),
        upstream_key=read_key("upstream-key-file", upstream_key_file),
        max_body_bytes=int(max_body_mib * MIB),
        max_running=max_running,
        max_queued=max_queued,
        request_timeout_s=timeout,
        drain_s=drain,
        e2e_slo_s=e2e_slo,
    )
    with needs_serve():
        from throttllem_env.live.files import allow_many_files
        from throttllem_env.live.server import serve as run
    allow_many_files()
    typer.echo("This gateway observes and routes; it sets no clock yet.", err=True)
    asyncio.run(run(settings, lambda line: typer.echo(line, err=True)))
