"""Pictures of a report for docs/report.md, taken by a headless Chromium.

    throttllem compare --agents AGENTS --load 0.5 --duration 1800 --seeds 2 --bound 20 --out out/shown
    python scripts/report_screenshot.py out/shown

AGENTS was max-frequency,static-frequency:mhz=900,throttllem,throttllem-energy for those that are there.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

from headless import Chromium, Tab, find_chromium

from throttllem_env.evaluation.report import Tariff, write_report

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PARTS = {
    "report-summary": ("header, #summary, #tradeoff", 1420),
    "report-timelines": ("#timelines", 1130),
}
"""Name of the picture, parts of the page, height in pixels."""

WIDTH_PX = 1100


def main() -> None:
    """Make the page and take the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what throttllem compare wrote")
    arguments = parser.parse_args()
    page = write_report(
        arguments.folder, arguments.folder / "report.html", Tariff(0.25, grid_g_per_kwh=350.0)
    )
    program = find_chromium()
    if program is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        Chromium(program, Path(profile)) as browser,
    ):
        take_all(page, browser)


def take_all(page: Path, browser: Chromium) -> None:
    """Take each picture, of a page with its parts alone.

    Args:
        page: The report; those pages lie beside it.
        browser: Takes them.
    """
    for name, (parts, height_px) in PARTS.items():
        only = f"<style>header, section {{ display: none }} {parts} {{ display: block }}</style></head>"
        shown = page.with_name(f"{name}.html")
        shown.write_text(page.read_text(encoding="utf-8").replace("</head>", only, 1), encoding="utf-8")
        image = IMAGES / f"{name}.png"
        browser.visit(
            shown.resolve().as_uri(), WIDTH_PX, partial(Tab.picture, path=image), height_px=height_px
        )
        print(image)


if __name__ == "__main__":
    main()
