"""`throttllem report`: a page of a comparison."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Throttllem = Callable[..., Any]


@pytest.fixture
def compared(throttllem: Throttllem, scenario_file: Path, tmp_path: Path) -> Path:
    done = throttllem(
        "compare", "--scenario", scenario_file, "--agents", "max-frequency,static-frequency:mhz=990",
        "--trace", "poisson:rate_rps=3,duration_s=30", "--out", "out",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    return tmp_path / "out"


def test_a_folder_of_compare_becomes_one_page(
    throttllem: Throttllem, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = throttllem("report", "out", "--price-per-kwh", 0.25, "--currency", "USD")
    assert done.status == 0, done.stderr
    assert done.stdout.startswith("Wrote out/report.html, ")
    page = (compared / "report.html").read_text(encoding="utf-8")
    assert "a kWh costs 0.25 USD" in page
    assert "static-frequency:mhz=990" in page
    elsewhere = throttllem("report", "out", "--out", tmp_path / "new" / "page.html")
    assert elsewhere.status == 0, elsewhere.stderr
    assert (tmp_path / "new" / "page.html").is_file()
    monkeypatch.setitem(sys.modules, "bokeh.embed", None)
    lacking = throttllem("report", "out")
    assert lacking.status == 2
    assert "pip install 'throttllem-env[report]'" in lacking.stderr


def test_a_folder_or_an_entry_but_not_both(throttllem: Throttllem) -> None:
    for arguments in ((), ("out", "--replay", "out/results.json")):
        done = throttllem("report", *arguments)
        assert done.status == 2
        assert "give a folder to make a page of, or --replay" in done.stderr


def test_a_folder_without_results_is_wrong_input(throttllem: Throttllem) -> None:
    done = throttllem("report", ".")
    assert done.status == 2
    assert "no results.json in it" in done.stderr
