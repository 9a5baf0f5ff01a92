"""A page of sections, each with a lead, tables and figures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under heads.

    Attributes:
        caption: What it shows; one sentence.
        heads: Column heads.
        rows: One list of cells per row.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure and what one sees in it.

    Attributes:
        name: File name without ending.
        alt: What one sees, for those who do not see it.
        draw: Draws it.
    """

    name: str
    alt: str
    draw: "Callable[[], Figure]"


@dataclass(frozen=True, slots=True)
class Section:
    """One data set, or several of a kind.

    Attributes:
        title: Its heading.
        lead: What is held to what, and how.
        tables: The figures.
        pictures: The plots.
    """

    title: str
    lead: str
    tables: Sequence[Table] = field(default_factory=tuple)
    pictures: Sequence[Picture] = field(default_factory=tuple)


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as a percentage.

    Example:
        >>> percent(0.0512)
        '5.1 %'
    """
    return f"{100 * fraction:.{digits}f} %"


def write_page(head: str, sections: Sequence[Section], page: Path, images: Path) -> list[Path]:
    """Write the page and its pictures.

    Args:
        head: What stands above the first section.
        sections: The sections, in order.
        page: The Markdown file.
        images: Folder for the pictures.

    Returns:
        The files written.
    """
    from throttllem_env.evaluation.plots.style import save

    written = [
        save(picture.draw(), images / f"{picture.name}.png") for s in sections for picture in s.pictures
    ]
    folder = images.relative_to(page.parent).as_posix()
    page.write_text("\n".join([head, *_lines(sections, folder)]) + "\n", encoding="utf-8")
    return [page, *written]


def _lines(sections: Sequence[Section], images: str) -> Iterator[str]:
    for section in sections:
        yield f"\n## {section.title}\n\n{section.lead}"
        for table in section.tables:
            yield f"\n{table.caption}\n"
            yield f"| {' | '.join(table.heads)} |"
            yield f"|{'---|' * len(table.heads)}"
            yield from (f"| {' | '.join(row)} |" for row in table.rows)
        for picture in section.pictures:
            yield f"\n![{picture.alt}]({images}/{picture.name}.png)"
