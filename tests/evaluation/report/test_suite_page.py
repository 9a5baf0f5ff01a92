"""The page of a suite: its numbers are those of the cases, and it works in a browser."""

import json
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.report import is_suite, write_suite_report
from throttllem_env.evaluation.report.suite_source import read_suite

from .conftest import add_bounds, leave


@pytest.fixture(scope="session")
def suite_folder(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases: one with bounds and a page of its own, one in which nobody holds the SLOs."""
    folder = tmp_path_factory.mktemp("suite")
    add_bounds(leave(comparison, folder / "case a"))
    (folder / "case a" / "report.html").touch()
    path = leave(comparison, folder / "case b") / "results.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["provenance"]["settings"]["load"] = 0.25
    for entry in document["summary"]:
        entry["slo_attained"] = False
    path.write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def suite_page(suite_folder: Path) -> Path:
    return write_suite_report(suite_folder, suite_folder / "index.html")


def test_cases_are_told_apart_by_what_differs(suite_folder: Path, comparison: Comparison) -> None:
    source = read_suite(suite_folder)
    assert source.agents == comparison.agents
    first, second = source.labels
    assert second == first.replace(f"load {comparison.settings.load:g}", "load 0.25")
    assert is_suite(suite_folder)
    assert not is_suite(suite_folder / "case a")


def test_its_numbers_are_those_of_the_cases(suite_folder: Path, suite_page: Path) -> None:
    text = suite_page.read_text(encoding="utf-8")
    document = json.loads((suite_folder / "case a" / "results.json").read_text(encoding="utf-8"))
    for entry in document["summary"]:
        if entry["saving"]["energy"]:
            assert text.count(f'<data value="{entry["saving"]["energy"]}">') >= 2
        if entry["above"]:
            assert f'<data value="{entry["above"]["best"]}">' in text
    assert "in 1 of 2 cases and saves" in text
    assert "How close our own come" in text
    assert "<td>yes</td>" in text or "<td>no: " in text
    assert len(text.encode()) < 5e6


def test_pages_of_cases_are_linked_where_there_are_any(suite_page: Path, tmp_path: Path) -> None:
    text = suite_page.read_text(encoding="utf-8")
    assert text.count('href="case%20a/report.html"') == 1
    assert "case%20b/report.html" not in text
    elsewhere = write_suite_report(suite_page.parent, tmp_path / "there" / "index.html")
    assert "report.html" not in elsewhere.read_text(encoding="utf-8")


@pytest.mark.parametrize("width_px", [1280, 390])
def test_it_is_drawn_without_complaint_or_overflow_and_agents_can_be_hidden_everywhere(
    chromium: Any, suite_page: Path, width_px: int
) -> None:
    hidden = "[...Bokeh.documents[0].all_models].filter((m) => m.name === 'agent-1' && !m.visible).length"

    async def look(tab: Any) -> Any:
        await tab.until("Bokeh.documents[0].is_idle")
        await tab.ask("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        wide = await tab.ask("[document.documentElement.scrollWidth, innerWidth]")
        before = await tab.ask(hidden)
        await tab.ask("document.querySelector('[data-agent=agent-1]').click()")
        return wide, before, await tab.ask(hidden), tab.complaints

    (wide, window), before, after, complaints = chromium.visit(suite_page.as_uri(), width_px, look)
    assert complaints == []
    assert wide <= window == width_px
    assert before == 0
    assert after >= 3  # in the plot of all cases, and in that of each
