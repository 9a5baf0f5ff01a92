"""A suite's page: who stands where, what is saved in each case, and how far from the best possible."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from throttllem_env.evaluation.report.look import FONT_PX, INK, agent_name, blank, colours, marker_names
from throttllem_env.evaluation.report.page import compose
from throttllem_env.evaluation.report.parts import Cell, Chart, Section, Table, number
from throttllem_env.evaluation.report.suite_source import SuiteSource, first_agent, read_suite
from throttllem_env.evaluation.report.tradeoff import tradeoff
from throttllem_env.evaluation.suites.leaderboard import (
    AIM,
    OURS,
    bound_saving,
    least,
    mean_above,
    saved,
    summary_of,
)
from throttllem_env.evaluation.suites.leaderboard import ranking as ranked

ROW_PX = 64


def write_suite_report(folder: Path, out: Path) -> Path:
    """Write the page.

    Args:
        folder: What `throttllem compare --suite` wrote.
        out: The HTML file; its folder is made.

    Returns:
        The file.

    Raises:
        ValueError: A case's results cannot be read.
    """
    source = read_suite(folder)
    made = [summary(source), cases(source), tradeoffs(source), *reports(source, out), origin(source)]
    below = f"{len(source.results)} cases, {len(source.agents)} agents"
    text = compose(made, headline(source), below, source.agents)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return out


def headline(source: SuiteSource) -> str:
    """The result in one sentence."""
    agent, held, saving = ranked(source.agents, source.results)[0]
    if held == 0:
        return "No agent holds the SLOs in any case"
    where = f"in {held} of {len(source.results)} cases"
    return f"{agent} holds the SLOs {where} and saves {100 * saving:.1f}\u00a0% there on average"


def summary(source: SuiteSource) -> Section:
    """All agents in order, and how close this project's own come to the best possible."""
    rows: list[list[Cell]] = [
        [
            agent,
            number(held, digits=0),
            number(None if saving != saving else saving, 100),  # nan where an agent holds them nowhere
            number(mean_above(agent, source.results), 100),
        ]
        for agent, held, saving in ranked(source.agents, source.results)
    ]
    heads = ["agent", f"SLOs held, of {len(source.results)}", "mean saving there %", "above the best %"]
    caption = (
        "Who holds the SLOs in more cases comes first, then who saves more; above the best: by how much its "
        "energy exceeds that of the best schedule found in hindsight, on average."
    )
    return Section("summary", "In short", tables=[Table(caption, heads, rows), *_own(source)])


def _own(source: SuiteSource) -> Iterator[Table]:
    """How close this project's own agents come to the best possible, case by case."""
    rows: list[list[Cell]] = []
    for label, result in zip(source.labels, source.results, strict=True):
        best, winner = least(result.document, ours=True), least(result.document)
        if best is None or winner is None:
            continue
        more = best["means"]["energy_j"] / winner["means"]["energy_j"] - 1
        lowest = "yes" if winner is best else f"no: {100 * more:.1f} % above {winner['agent']}"
        above = best.get("above") or {"best": None, "lower": None}
        distances = number(above["best"], 100), number(above["lower"], 100, 0)
        share = saved(best)
        saving = number(None if share != share else share, 100)
        rows.append([label, best["agent"], saving, lowest, *distances])
    if rows:
        yield Table(
            f"How close our own come ({' and '.join(OURS)}): the best of them in each case, whether it uses "
            "the least energy of all that hold the SLOs, and how far it is above the best schedule found in "
            f"hindsight (at most {100 * AIM:.0f} % is the aim) and above the lower bound.",
            ["case", "best of ours", "saves %", "lowest of all", "above the best %", "above the bound %"],
            rows,
        )


def cases(source: SuiteSource) -> Section:
    """What each agent saves in each case."""
    first = first_agent(source.results[0].document)
    rows: list[list[Cell]] = [
        [label, *(_saving(result.document, agent) for agent in source.agents)]
        for label, result in zip(source.labels, source.results, strict=True)
    ]
    chart = Chart(
        "cases-plot",
        "Energy saved in each case",
        "Right is less energy. Hollow symbols miss an SLO. The dashed line is the best schedule found in "
        "hindsight, the dotted one the bound that nobody can be beyond, where they were computed.",
        _savings_plot(source),
        of_agents=True,
        table=Table(f"Energy saved against {first}, in %.", ["case", *source.agents], rows),
    )
    return Section("cases", "Savings by case", charts=[chart])


def _saving(document: dict[str, Any], agent: str) -> Cell:
    share = saved(summary_of(document, agent))
    return number(None if share != share else share, 100)


def _savings_plot(source: SuiteSource) -> Any:
    from bokeh.models import HoverTool

    n = len(source.results)
    plot = blank(70 + ROW_PX * n, "energy saved (%)", "", y_range=(0.5 - n, 0.7))
    for place, (label, result) in enumerate(zip(source.labels, source.results, strict=True)):
        plot.segment([0], [-place], [100], [-place], line_color="#DDDDDD")
        plot.text([0], [0.2 - place], [label], text_font_size=FONT_PX, text_color=INK, text_baseline="bottom")
        for what, dash in (("best_j", "dashed"), ("lower_j", "dotted")):
            if (share := bound_saving(result.document, what)) is not None:
                ends = [-place - 0.25], [100 * share], [-place + 0.25]
                plot.segment([100 * share], *ends, line_color=INK, line_dash=dash, line_width=2)
    drawn = [_draw_agent(plot, source, agent) for agent in source.agents]
    tips = [("agent", "@agent"), ("saves", "@saved{0.0} %"), ("in", "@case"), ("in time", "@in_time{0.00} %")]
    plot.add_tools(HoverTool(renderers=drawn, tooltips=tips))
    plot.ygrid.grid_line_color = None
    plot.yaxis.visible = False
    plot.min_border_left = 8
    return plot


def _draw_agent(plot: Any, source: SuiteSource, agent: str) -> Any:
    """An agent's symbol in every case in which it has a saving."""
    colour = colours(source.agents)[agent]
    data: dict[str, list[Any]] = {name: [] for name in ("saved", "y", "fill", "agent", "case", "in_time")}
    for place, (label, result) in enumerate(zip(source.labels, source.results, strict=True)):
        entry = summary_of(result.document, agent)
        if entry is None or (share := saved(entry)) != share:
            continue
        row = (100 * share, -place, colour if entry["slo_attained"] else "white", agent, label)
        for name, value in zip(data, (*row, 100 * entry["means"]["slo_attainment"]), strict=True):
            data[name].append(value)
    return plot.scatter(
        "saved", "y", source=data, marker=marker_names(source.agents)[agent], size=12, line_width=2,
        line_color=colour, fill_color="fill", name=agent_name(source.agents, agent),
    )  # fmt: skip


def tradeoffs(source: SuiteSource) -> Section:
    """Energy against requests in time, case by case."""
    charts = []
    for place, label in enumerate(source.labels):
        chart = tradeoff(source.source(place)).charts[0]
        # One legend is enough: what is hidden in one plot is hidden in all.
        charts.append(replace(chart, name=f"tradeoff-{place}", title=label, of_agents=place == 0))
    return Section("tradeoffs", "Energy against SLO attainment", charts=charts)


def reports(source: SuiteSource, out: Path) -> Iterator[Section]:
    """Links to the pages of cases, where they were made."""
    links = [
        (quote(Path(*result.folder.relative_to(source.folder).parts, "report.html").as_posix()), label)
        for label, result in zip(source.labels, source.results, strict=True)
        if (result.folder / "report.html").is_file() and out.parent == source.folder
    ]
    if links:
        lead = ["Timelines, latencies, clocks and costs of each case:"]
        yield Section("reports", "Cases one by one", lead, links=links)


def origin(source: SuiteSource) -> Section:
    """Say how to come to the same results."""
    made = source.results[0].document["provenance"]
    lead = (
        f"Made {made['created']} on {made['platform']}. The first command makes these results again; the "
        "second makes the page of one case, with timelines. GPUs are modelled, fitted to published "
        "measurements; the documentation's page on fidelity says how far the models are off."
    )
    versions = Table("Versions.", ["package", "version"], [list(item) for item in made["versions"].items()])
    one = f"throttllem report {source.results[0].folder}"
    return Section(
        "origin", "Where the numbers come from", [lead], tables=[versions], code=[made["command"], one]
    )
