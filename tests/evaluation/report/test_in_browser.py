"""The page as a person meets it: in a real browser, on a desktop and on a phone."""

from pathlib import Path
from typing import Any

import pytest

WIDTHS_PX = (1280, 390)
# Pixels are read from copies: the browser complains of a canvas that is read again and again, as it is on a
# slow machine, which has to be asked more than once.
DRAWN = """
(() => {
  const canvases = [];
  const pixels = (canvas) => {
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const context = copy.getContext("2d", {willReadFrequently: true});
    context.drawImage(canvas, 0, 0);
    return context.getImageData(0, 0, copy.width, copy.height).data;
  };
  const walk = (node) => node.querySelectorAll("*").forEach((element) => {
    if (element.tagName === "CANVAS") canvases.push(element);
    if (element.shadowRoot) walk(element.shadowRoot);
  });
  const plots = [...document.querySelectorAll(".plot")];
  return plots.map((plot) => {
    canvases.length = 0;
    walk(plot);
    return canvases.some((canvas) => canvas.width > 0 && canvas.height > 0 &&
      new Set(pixels(canvas)).size > 2);
  });
})()
"""
CONTROLS = "document.querySelectorAll('a, input, select, button, summary')"
DOC = "Bokeh.documents[0]"
ALL_DRAWN = f"{DOC}.is_idle && {DRAWN.strip()}.every(Boolean)"


def model(name: str) -> str:
    return f"{DOC}.get_model_by_name('{name}')"


@pytest.mark.parametrize("width_px", WIDTHS_PX)
def test_all_plots_are_drawn_without_complaint_or_overflow(
    chromium: Any, hostile_page: Path, width_px: int
) -> None:
    async def look(tab: Any) -> Any:
        for _ in range(3):  # asking changes nothing
            await tab.until(ALL_DRAWN)
        await tab.ask("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        return await tab.ask("[document.documentElement.scrollWidth, innerWidth]"), tab.complaints

    (wide, window), complaints = chromium.visit(hostile_page.as_uri(), width_px, look)
    assert complaints == []
    assert wide <= window == width_px


def test_the_run_that_is_chosen_is_shown(chromium: Any, hostile_page: Path) -> None:
    choose = "const s = document.getElementById('{}'); s.value = '{}'; s.dispatchEvent(new Event('change'));"

    async def look(tab: Any) -> Any:
        clock = f"{model('shown-line')}.data.clock[9]"
        found = []
        for run in (0, 2):
            await tab.ask(f"(() => {{ {choose.format('run-shown', run)} }})()")
            found.append(await tab.ask(clock))
        await tab.ask(f"(() => {{ {choose.format('run-beside', '')} }})()")
        return found, await tab.ask(f"{model('beside-line')}.data.clock.length"), tab.complaints

    found, beside, complaints = chromium.visit(hostile_page.as_uri(), 1280, look)
    assert found == [1410, 990]
    assert beside == 0
    assert complaints == []


def test_zoom_and_agents_are_reached_and_used_by_keyboard(chromium: Any, hostile_page: Path) -> None:
    async def look(tab: Any) -> Any:
        reached = set()
        width = f"{model('zoom')}.end - {model('zoom')}.start"
        before = await tab.ask(width)
        hidden = 0
        controls = await tab.ask(f"{CONTROLS}.length")
        for _ in range(controls + 60):
            await tab.press("Tab", 9)
            await tab.ask("document.activeElement.dataset.seen = 'yes'")
            what = await tab.ask(
                "(({dataset: d, tagName: t}) => d.zoom ?? d.agent ?? t)(document.activeElement)"
            )
            if what == "in" and what not in reached:
                await tab.press("Enter", 13)
            if what == "agent-1" and not hidden:
                await tab.press(" ", 32)
                hidden = await tab.ask(
                    f"[...{DOC}.all_models].filter((m) => m.name === 'agent-1' && !m.visible).length"
                )
            reached.add(what)
        missed = f"[...{CONTROLS}].filter((e) => !e.dataset.seen)"
        return (
            reached,
            before,
            await tab.ask(width),
            hidden,
            await tab.ask(f"{missed}.length"),
            tab.complaints,
        )

    reached, before, after, hidden, missed, complaints = chromium.visit(hostile_page.as_uri(), 1280, look)
    assert {"in", "out", "earlier", "later", "all", "SELECT", "SUMMARY"} <= reached
    assert after == pytest.approx(before / 2)
    assert hidden > 3
    assert missed == 0
    assert complaints == []


def test_on_paper_nothing_is_cut_off_and_all_numbers_are_there(
    chromium: Any, hostile_page: Path, tmp_path: Path
) -> None:
    async def look(tab: Any) -> Any:
        await tab.until(ALL_DRAWN)
        await tab.pdf(tmp_path / "page.pdf")
        opened = await tab.ask("[...document.querySelectorAll('details')].every((part) => part.open)")
        widths = "[...document.querySelectorAll('.plot')].map((e) => e.getBoundingClientRect().width)"
        return opened, await tab.ask(widths), tab.complaints

    opened, widths_px, complaints = chromium.visit(hostile_page.as_uri(), 1280, look)
    assert opened
    assert complaints == []
    # Plots keep their width on paper: that of A4 on its side, less margins of 8 mm, at 96 pixels per inch.
    assert 900 < max(widths_px) <= (297 - 16) / 25.4 * 96
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
