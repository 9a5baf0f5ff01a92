"""The page itself: all sections in one file."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.report.costs import Tariff, costs
from throttllem_env.evaluation.report.energy import energy
from throttllem_env.evaluation.report.latencies import latencies
from throttllem_env.evaluation.report.legend import agent_keys
from throttllem_env.evaluation.report.origin import origin
from throttllem_env.evaluation.report.parts import Number, Section
from throttllem_env.evaluation.report.residency import residency
from throttllem_env.evaluation.report.savings import savings
from throttllem_env.evaluation.report.source import Source, read_source
from throttllem_env.evaluation.report.summary import headline, summary
from throttllem_env.evaluation.report.timelines import run_names, timelines
from throttllem_env.evaluation.report.tradeoff import tradeoff
from throttllem_env.evaluation.tables import subtitle

PACKAGE = "throttllem_env.evaluation.report"


def write_report(folder: Path, out: Path, tariff: Tariff) -> Path:
    """Write the page.

    Args:
        folder: What `throttllem compare` wrote.
        out: The HTML file; its folder is made.
        tariff: What a kWh costs and emits.

    Returns:
        The file.

    Raises:
        ValueError: There are no results in the folder, or the tariff is none.
    """
    tariff.check()
    text = render(read_source(folder), tariff)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return out


def sections(source: Source, tariff: Tariff) -> list[Section]:
    """All sections that there is something for, in order.

    Args:
        source: The comparison.
        tariff: What a kWh costs and emits.
    """
    made = (
        summary(source),
        tradeoff(source),
        savings(source),
        timelines(source),
        latencies(source),
        residency(source),
        energy(source),
        costs(source, tariff),
        origin(source),
    )
    return [section for section in made if section is not None]


def render(source: Source, tariff: Tariff) -> str:
    """The page as text.

    Args:
        source: The comparison.
        tariff: What a kWh costs and emits.
    """
    return compose(
        sections(source, tariff),
        headline(source),
        subtitle(source.document),
        source.agents,
        run_names(source),
    )


def compose(
    parts: Sequence[Section], title: str, below: str, agents: Sequence[str], runs: Sequence[str] = ()
) -> str:
    """A page of sections.

    Args:
        parts: The sections, in order.
        title: The result in one sentence.
        below: What it is about, on one line.
        agents: All agents, in the order in which colours are dealt out.
        runs: Names of the runs that timelines show.
    """
    from markupsafe import Markup

    script, places = _plots(parts)
    text: str = _template().render(
        title=title,
        subtitle=below,
        sections=parts,
        agents=agent_keys(agents),
        runs=runs,
        plots={name: Markup(place) for name, place in places.items()},
        css=Markup(_file("page.css")),
        scripts=[Markup(part) for part in (_library(), script, _script())],
    )
    return text


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["number"] = lambda cell: isinstance(cell, Number)
    return environment.from_string(_file("page.html.j2"))


def _plots(parts: Sequence[Section]) -> tuple[str, dict[str, str]]:
    """Bokeh's script for all plots, and where each of them appears."""
    from bokeh.embed import components

    script, places = components({chart.name: chart.model for part in parts for chart in part.charts})
    return script, places


def _library() -> str:
    from bokeh.resources import Resources

    text: str = Resources(mode="inline", components=["bokeh"]).render_js()
    return text


def _script() -> str:
    return f"<script>\n{_file('page.js')}</script>"


def _file(name: str) -> str:
    return (files(PACKAGE) / name).read_text(encoding="utf-8")
