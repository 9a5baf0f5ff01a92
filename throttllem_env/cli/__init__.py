"""The command `throttllem`: one file per command.

What a command needs is imported when it runs, so that `--help` is quick.
"""

import os
import sys
from typing import Annotated, Any, Never

import typer
from typer.core import TyperGroup

from throttllem_env.cli import (
    bench,
    compare,
    doctor,
    fit,
    profile,
    replay,
    report,
    scenarios,
    serve,
    trace,
    train,
    transitions,
)

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer has no public name for the base of all errors in how a command was written."""

INPUT, FAILED, INTERRUPTED = 2, 1, 130


class Commands(TyperGroup):
    """The one place where errors become one line on stderr and an exit status."""

    def main(self, *args: Any, **options: Any) -> Never:
        """Run a command and exit: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
        options["standalone_mode"] = False
        try:
            status = super().main(*args, **options)
            if status == INTERRUPTED:  # typer has caught Ctrl-C and says nothing
                raise KeyboardInterrupt
        except USAGE_ERROR as error:
            status = _refuse(_usage_message(error), INPUT)
        except (KeyboardInterrupt, typer.Abort):
            status = _refuse("interrupted", INTERRUPTED)
        except BrokenPipeError:
            # The reader (`| head`) has enough; Python would complain again at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = FAILED
        except ValueError as error:
            status = _explain(error, INPUT)
        except OSError as error:
            status = _explain(error, FAILED)
        sys.exit(status if isinstance(status, int) else 0)


def _usage_message(error: Any) -> str:
    """Which command was written wrongly, and how."""
    where = f"{error.ctx.command_path}: " if getattr(error, "ctx", None) else ""
    return f"{where}{error.format_message()}"


def _explain(error: Exception, status: int) -> int:
    """Say what is wrong; developers get the traceback with THROTTLLEM_TRACEBACK=1."""
    if os.environ.get("THROTTLLEM_TRACEBACK"):
        raise error
    return _refuse(str(error) or type(error).__name__, status)


def _refuse(message: str, status: int) -> int:
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return status


app = typer.Typer(
    name="throttllem",
    cls=Commands,
    help="Save energy in LLM serving: GPU clocks and instance sizes against latency SLOs.",
    epilog="\n\n".join(
        [
            "[bold]First steps[/bold]",
            "[cyan]throttllem compare --out out/first[/cyan] : how much energy does throttLL'eM save?",
            "[cyan]throttllem trace describe azure-conv-like[/cyan] : what do the requests look like?",
            "[cyan]throttllem scenarios show llama2-13b-a100[/cyan] : what is served, on what, for whom?",
        ]
    ),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from throttllem_env import __version__

        typer.echo(f"throttllem-env {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


compare.register(app)
report.register(app)
train.register(app)
transitions.register(app)
profile.register(app)
fit.register(app)
bench.register(app)
serve.register(app)
replay.register(app)
doctor.register(app)
app.add_typer(trace.app, name="trace")
app.add_typer(scenarios.app, name="scenarios")


def main() -> None:
    """Entry point of the command `throttllem`."""
    app()
