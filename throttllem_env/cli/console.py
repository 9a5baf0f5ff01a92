"""Where commands print: results to stdout, progress to stderr and only when a person watches."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress
    from rich.table import Table

ROOMY = 110
PIPE_WIDTH = 150
"""Columns where stdout is no terminal: tables are not broken for the sake of a screen."""


def output() -> "Console":
    """The console for results."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


def progress_bar(kind: "type[Progress] | None" = None) -> "Progress":
    """A progress bar on stderr; silent when stderr is no terminal.

    Args:
        kind: A subclass of rich's, or None for its own.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return (kind or Progress)(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def counting_bar(pattern: str, what: str) -> "Iterator[Callable[[Path, int, int], None]]":
    """A bar that counts files as they appear, whichever process writes them.

    Args:
        pattern: Which files of the folder count.
        what: What a file stands for, in the plural.

    Yields:
        To be told the folder, how many are there, and of how many; again for a further folder.
    """
    from rich.progress import Progress

    folders: list[Path] = []

    class Bar(Progress):
        """Looks into the folder whenever it is drawn, ten times a second."""

        def get_renderables(self) -> "Iterable[RenderableType]":
            if folders and self.task_ids and folders[-1].is_dir():
                done = sum(1 for _ in folders[-1].glob(pattern))
                self.update(self.task_ids[0], completed=done, description=f"{done} {what} done")
            return super().get_renderables()

    with progress_bar(Bar) as bar:
        task = bar.add_task("starting", total=None)

        def on_start(folder: Path, done: int, total: int) -> None:
            folders.append(folder)
            bar.update(task, total=total)
            if done:
                print(f"continuing: {done} of {total} {what} were there", file=sys.stderr)

        yield on_start


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> "Table":
    """A table whose first column is text and whose others are figures.

    Args:
        heads: Column heads.
        rows: Cells.
        title: What it shows.
    """
    from rich import box
    from rich.table import Table

    # Narrow terminals get no air between the columns, wide ones get two blanks.
    drawn = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0) if output().width >= ROOMY else 0,
    )
    for i, head in enumerate(heads):
        if i == 0:
            drawn.add_column(head, overflow="fold", min_width=12)
        else:
            drawn.add_column(head, justify="right", overflow="fold")
    return _filled(drawn, rows)


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> "Table":
    """A table of text; see `table`."""
    from rich import box
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        drawn.add_column(head, overflow="fold")
    return _filled(drawn, rows)


def _filled(drawn: "Table", rows: Sequence[Sequence[str]]) -> "Table":
    """Add cells as they are: brackets in them are no markup."""
    from rich.text import Text

    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def facts(pairs: Sequence[tuple[str, str]], title: str) -> "Table":
    """Names and values, one pair a line.

    Args:
        pairs: What to show.
        title: Of what.
    """
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    return _filled(drawn, pairs)
