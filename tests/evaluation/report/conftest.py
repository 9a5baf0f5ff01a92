"""A comparison on disk, as `throttllem compare` leaves it, its page, and a browser."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation.bound.distance import Best, SeedBounds, with_bounds
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.report import Tariff, write_report
from throttllem_env.evaluation.results import results, write_json
from throttllem_env.evaluation.sweeps.run_file import dump_run

HOSTILE = "static-frequency:mhz=990 </script><script>alert('!')</script>"
COMMAND = ["throttllem", "compare", "--agents", "max-frequency,throttllem"]
TARIFF = Tariff(0.5, "CHF", 100.0)


def leave(comparison: Comparison, folder: Path) -> Path:
    """What a comparison leaves for a report."""
    (folder / "runs").mkdir(parents=True)
    write_json(results(comparison, COMMAND), folder / "results.json")
    for i, run in enumerate(comparison.runs):
        (folder / "runs" / f"{i:02}.npz").write_bytes(dump_run(run))
    return folder


@pytest.fixture
def folder(comparison: Comparison, tmp_path: Path) -> Path:
    return leave(comparison, tmp_path / "compared")


@pytest.fixture(scope="session")
def page(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page for tests that only read it; results.json lies beside it."""
    folder = leave(comparison, tmp_path_factory.mktemp("kept") / "compared")
    return write_report(folder, folder / "report.html", TARIFF)


@pytest.fixture(scope="session")
def hostile_page(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with bounds, and with an agent whose name would end the page's script."""
    agents = tuple(HOSTILE if "static" in a else a for a in comparison.settings.agents)
    runs = tuple(replace(r, agent=HOSTILE) if "static" in r.agent else r for r in comparison.runs)
    named = replace(comparison, settings=replace(comparison.settings, agents=agents), runs=runs)
    folder = leave(named, tmp_path_factory.mktemp("hostile") / "compared")
    add_bounds(folder)
    return write_report(folder, folder / "report.html", TARIFF)


def add_bounds(folder: Path) -> None:
    """Bounds as `compare --bound` writes them."""
    path = folder / "results.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    bounds = []
    for seed in (0, 1):
        least_j = min(r["metrics"]["energy_j"] for r in document["runs"] if r["seed"] == seed)
        bounds.append(SeedBounds(seed, 0.5 * least_j, 9, Best(0.8 * least_j, "search", 3)))
    path.write_text(json.dumps(with_bounds(document, bounds)), encoding="utf-8")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """By `scripts/headless.py`. Skipped where there is none, on CI only if it was not to be had."""
    spec = spec_from_file_location("headless", Path(__file__).parents[3] / "scripts" / "headless.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    program = module.find_chromium()
    if program is None:
        if why := os.environ.get("NO_CHROMIUM"):  # .ci/run has tried
            pytest.skip(f"no Chromium: {why}")
        reason = "no Chromium here: apt-get install chromium"
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(reason)
        pytest.skip(reason)
    with module.Chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser
