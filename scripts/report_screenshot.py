"""Pictures of a report for docs/report.md, taken by a headless Chromium.

    throttllem compare --agents AGENTS --load 0.5 --duration 1800 --seeds 2 --bound 20 --out out/shown
    python scripts/report_screenshot.py out/shown

AGENTS was max-frequency,static-frequency:mhz=900,throttllem,throttllem-energy for those that are there.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from throttllem_env.evaluation.report import Tariff, write_report

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
PARTS = {
    "report-summary": ("header, #summary, #tradeoff", 1420),
    "report-timelines": ("#timelines", 1130),
}
"""Name of the picture, parts of the page, height in pixels."""

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--virtual-time-budget=20000",
)  # fmt: skip
MOST_S = 120


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
    for name, (parts, height_px) in PARTS.items():
        only = f"<style>header, section {{ display: none }} {parts} {{ display: block }}</style></head>"
        shown = page.with_name(f"{name}.html")
        shown.write_text(page.read_text(encoding="utf-8").replace("</head>", only, 1), encoding="utf-8")
        take(shown.resolve().as_uri(), height_px, IMAGES / f"{name}.png")
        print(IMAGES / f"{name}.png")


def take(url: str, height_px: int, image: Path) -> None:
    """Take a picture of what a window of this height shows."""
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        size = (f"--window-size=1100,{height_px}", f"--user-data-dir={profile}", f"--screenshot={image}")
        subprocess.run([program, *FLAGS, *size, url], check=True, timeout=MOST_S, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
