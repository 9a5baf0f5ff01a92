"""The page's numbers are those of results.json, whatever it was made from."""

import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.report import Tariff, write_report
from throttllem_env.evaluation.report.legend import agent_keys
from throttllem_env.evaluation.report.page import render
from throttllem_env.evaluation.report.savings import stretches
from throttllem_env.evaluation.report.source import Source, read_source
from throttllem_env.evaluation.sweeps.run_file import dump_run
from throttllem_env.serving.timeline import COLUMNS, Timeline

Rows = dict[str, list[tuple[str, float | None]]]


class Tables(HTMLParser):
    """All tables of a page by their labels: text and exact number of every cell, by the name of the row."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Rows] = {}
        self.heads: dict[str, list[str]] = {}
        self._label = ""
        self._cells: list[tuple[str, float | None]] | None = None
        self._exact: float | None = None
        self._text: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "table":
            self._label = given["aria-label"] or ""
            self.found[self._label], self.heads[self._label] = {}, []
        elif tag == "tr":
            self._cells = []
        elif tag in ("th", "td"):
            self._text, self._exact = "", None
        elif tag == "data":
            self._exact = float(given["value"] or "nan")

    def handle_data(self, text: str) -> None:
        if self._text is not None:
            self._text += text

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td") and self._text is not None and self._cells is not None:
            self._cells.append((self._text.strip(), self._exact))
            self._text = None
        elif tag == "tr" and self._cells:
            if self.heads[self._label]:
                self.found[self._label][self._cells[0][0]] = self._cells[1:]
            else:
                self.heads[self._label] = [text for text, _ in self._cells[1:]]


def tables(page: Path) -> Tables:
    parser = Tables()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def cells(parser: Tables, caption: str) -> Iterator[tuple[str, str, str, float | None]]:
    """Row, head, text and exact number of all cells of the table whose caption begins so."""
    (label,) = [found for found in parser.found if found.startswith(caption)]
    for row, values in parser.found[label].items():
        for head, (text, exact) in zip(parser.heads[label], values, strict=True):
            yield row, head, text, exact


def page_of(folder: Path, tariff: Tariff | None = None) -> Path:
    return write_report(folder, folder / "report.html", tariff or Tariff())


def document_of(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


METRIC_OF_HEAD = {
    "in time, %": ("slo_attainment", 100, 2),
    "tokens per J": ("tokens_per_joule", 1, 3),
    "E2E p99, s": ("e2e_p99_s", 1, 1),
    "between tokens, ms": ("tbt_mean_s", 1000, 1),
    "clock, MHz": ("frequency_mean_mhz", 1, 0),
    "size changes": ("size_changes", 1, 1),
}


def test_the_summary_has_the_numbers_of_results_json(page: Path) -> None:
    by_agent = {entry["agent"]: entry for entry in document_of(page.parent)["summary"]}
    seen = set()
    for agent, head, text, exact in cells(tables(page), "Means over an agent's runs"):
        if head in METRIC_OF_HEAD:
            name, factor, digits = METRIC_OF_HEAD[head]
            assert exact == by_agent[agent]["means"][name]
            assert text.replace(",", "") == f"{exact * factor:.{digits}f}"
        elif head == "saving, %":
            assert exact == by_agent[agent]["saving"]["energy"]
        elif head.startswith("energy"):
            assert exact == by_agent[agent]["means"]["energy_j"]
        elif head == "SLOs":
            assert text.startswith("✓") == by_agent[agent]["slo_attained"]
        seen.add((agent, head))
    assert len(seen) == len(by_agent) * 10


def test_parts_of_the_energy_add_up_to_it(page: Path) -> None:
    sums: dict[str, float] = {}
    for agent, head, _, exact in cells(tables(page), "Energy of a run in"):
        assert exact is not None
        if head == "all":
            assert sums[agent] == pytest.approx(exact, rel=1e-12)
        else:
            sums[agent] = sums.get(agent, 0.0) + exact
    assert len(sums) == 3


def test_counts_of_requests_are_those_of_all_runs(page: Path) -> None:
    runs = document_of(page.parent)["runs"]
    names = {"late": "slo_violations", "refused": "rejected", "requests": "requests"}
    for agent, head, _, exact in cells(tables(page), "Latency of all runs"):
        if head in names:
            assert exact == sum(r["metrics"][names[head]] for r in runs if r["agent"] == agent)


def test_shares_of_time_are_all_of_it(page: Path) -> None:
    parser = tables(page)
    (sizes,) = [label for label in parser.heads if "4 GPUs" in parser.heads[label]]
    for label in ("Share of time at each clock", "Share of time at each size"):
        for agent in document_of(page.parent)["provenance"]["settings"]["agents"]:
            values = [exact for row, _, _, exact in cells(parser, label) if row == agent]
            assert sum(v for v in values if v is not None) == pytest.approx(1)
    assert parser.found[sizes]["static-frequency:mhz=990"][-1][1] == 1


def test_energy_by_time_of_the_trace_adds_up(page: Path) -> None:
    source = read_source(page.parent)
    for agent in source.agents:
        cut = stretches(source, agent)
        assert cut is not None
        whole_j = sum(entry["metrics"]["energy_j"] for entry in source.entries(agent))
        assert cut.energy_j.sum() == pytest.approx(whole_j, rel=1e-9)
        assert cut.arrived.sum() == sum(e["metrics"]["requests"] for e in source.entries(agent))


def test_money_and_co2e_follow_from_price_and_grid(page: Path) -> None:
    means = {e["agent"]: e["means"] for e in document_of(page.parent)["summary"]}
    found = {(agent, head): exact for agent, head, _, exact in cells(tables(page), "Of one node")}
    for agent, mean in means.items():
        kwh = mean["energy_j"] / 3.6e6
        assert found[agent, "CHF per 1,000 requests"] == pytest.approx(0.5e3 * kwh / mean["completed"])
        assert found[agent, "kg CO2e per 1,000 requests"] == pytest.approx(100 * kwh / mean["completed"])
        years = 365.25 * 24 * 3600 / mean["duration_s"]
        assert found[agent, "CHF per year"] == pytest.approx(0.5 * kwh * years)


def test_without_a_price_the_page_says_how_to_give_one(folder: Path) -> None:
    assert "--price-per-kwh" in page_of(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("tariff", [Tariff(-1.0), Tariff(grid_g_per_kwh=float("nan"))])
def test_a_price_that_is_none_is_refused(folder: Path, tariff: Tariff) -> None:
    with pytest.raises(ValueError, match=r"(price|grid_g)_per_kwh = .*must be a finite number"):
        page_of(folder, tariff)


def test_bounds_are_drawn_and_the_distance_to_them_is_told(hostile_page: Path) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    assert "more energy than the proven lower bound" in text
    assert "best in hindsight" in text
    by_agent = {e["agent"]: e for e in document_of(hostile_page.parent)["summary"]}
    for agent, head, _, exact in cells(tables(hostile_page), "Means over an agent's runs"):
        if head in ("above best, %", "above bound, %"):
            above = by_agent[agent]["above"] or {}
            assert exact == above.get("best" if "best" in head else "lower")


def test_a_name_cannot_become_a_part_of_the_page(hostile_page: Path) -> None:
    assert "<script>alert" not in hostile_page.read_text(encoding="utf-8")


def test_nothing_in_the_page_is_fetched(hostile_page: Path) -> None:
    text = hostile_page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert '<script src="' not in text
    assert '<link rel="stylesheet"' not in text


def test_without_its_runs_a_comparison_still_has_a_page(folder: Path) -> None:
    for path in (folder / "runs").iterdir():
        path.unlink()
    page = page_of(folder)
    text = page.read_text(encoding="utf-8")
    assert "The files of 6 of 6 runs are not in the folder" in text
    assert 'id="timelines"' not in text
    assert len(list(cells(tables(page), "Means over an agent's runs"))) == 30


def test_only_files_with_the_metrics_of_the_entry_count(comparison: Comparison, folder: Path) -> None:
    run = comparison.runs[0]
    other = replace(run.result, metrics={**run.result.metrics, "energy_j": 1.0})
    (folder / "runs" / "00.npz").write_bytes(dump_run(replace(run, result=other)))
    (folder / "runs" / "aa.npz").write_bytes(b"no file of a run")
    assert read_source(folder).lost == 1
    (folder / "runs" / "zz.npz").write_bytes(dump_run(run))
    assert read_source(folder).lost == 0


def test_failed_runs_are_named(folder: Path) -> None:
    path = folder / "results.json"
    document = document_of(folder)
    document["failures"] = [{"agent": "throttllem", "seed": 7, "error": "ValueError: <b>", "traceback": ""}]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert "throttllem, seed 7, failed: ValueError: &lt;b&gt;" in page_of(folder).read_text(encoding="utf-8")


def test_a_folder_without_results_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="throttllem compare --out DIR"):
        page_of(folder / "runs")
    for content in ("[]", "{", '{"format": 99}'):
        (folder / "results.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"no JSON|no results\.json of format"):
            page_of(folder)


def long_comparison(source: Source, agents: int, seeds: int) -> Source:
    """As many runs as a large comparison has, each an hour of samples."""
    rng = np.random.default_rng(0)
    columns = {name: rng.random(3690).cumsum().tolist() for name in COLUMNS}
    result = replace(source.runs[0].result, timeline=Timeline(**columns))
    entry, summary = source.document["runs"][0], source.document["summary"][0]
    names = [f"agent-with-a-long-name:number={i}" for i in range(agents)]
    document = {
        **source.document,
        "runs": [{**entry, "agent": name, "seed": seed} for name in names for seed in range(seeds)],
        "summary": [{**summary, "agent": name} for name in names],
    }
    runs = [replace(source.runs[0], agent=a, seed=s, result=result) for a in names for s in range(seeds)]
    return Source(source.folder, document, tuple(runs))


def test_no_two_agents_have_the_same_symbol(folder: Path) -> None:
    keys = agent_keys(long_comparison(read_source(folder), 40, 1).agents)
    assert len({(key.colour, key.shape) for key in keys}) == 40


@pytest.mark.parametrize(("agents", "seeds"), [(20, 1), (17, 20)])
def test_the_page_of_a_large_comparison_stays_below_5_mb(folder: Path, agents: int, seeds: int) -> None:
    source = long_comparison(read_source(folder), agents, seeds)
    assert 2e6 < len(render(source, Tariff()).encode()) < 5e6
