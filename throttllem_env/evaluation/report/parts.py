"""What sections of the page are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from throttllem_env.evaluation.tables import MISSING

if TYPE_CHECKING:
    from bokeh.models import LayoutDOM


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is shown, with the very number behind it.

    Attributes:
        shown: For people.
        exact: As it stands in `results.json`, or computed from what stands there; None if there is none.
    """

    shown: str
    exact: float | None


Cell = str | Number


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under heads; the first cell of a row names it.

    Not the `Table` of `evaluation.document`: cells here keep the very number behind what is shown, which a
    page in Markdown could not, and nothing but three names would be shared.

    Attributes:
        caption: What it shows; one sentence.
        heads: Column heads.
        rows: One list of cells per row.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Key:
    """A colour and what it stands for.

    Attributes:
        colour: As CSS writes it.
        label: What it stands for.
    """

    colour: str
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot and what one sees in it.

    Attributes:
        name: Identifies it in the page.
        title: What it shows.
        reading: How to read it; a sentence or two.
        model: What Bokeh draws.
        keys: Colours; empty for a chart whose colours are those of the agents.
        of_agents: Whether each agent has its own colour in it.
        table: The same in numbers.
    """

    name: str
    title: str
    reading: str
    model: "LayoutDOM"
    keys: Sequence[Key] = ()
    of_agents: bool = False
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page.

    Attributes:
        name: Identifies it in the page.
        title: Its heading.
        lead: What it is about; paragraphs.
        tables: Tables in sight.
        charts: Plots.
        code: Lines to be copied.
        links: Addresses and what is to be found there.
    """

    name: str
    title: str
    lead: Sequence[str] = ()
    tables: Sequence[Table] = field(default_factory=tuple)
    charts: Sequence[Chart] = field(default_factory=tuple)
    code: Sequence[str] = field(default_factory=tuple)
    links: Sequence[tuple[str, str]] = field(default_factory=tuple)


def number(value: float | None, factor: float = 1.0, digits: int = 1) -> Number:
    """A number for a table, grouped by thousands; a dash where there is none.

    Args:
        value: As it is.
        factor: Turns it into the unit shown.
        digits: Behind the point.

    Example:
        >>> number(1234567.0, 1e-3).shown
        '1,234.6'
    """
    if value is None:
        return Number(MISSING, None)
    return Number(f"{value * factor:,.{digits}f}".replace("-", "−"), value)
