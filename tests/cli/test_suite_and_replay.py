"""`throttllem compare --suite` and `throttllem report --replay`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Throttllem = Callable[..., Any]

SUITE = """\
name: mine
version: 1
description: One case.
agents: [max-frequency]
duration_s: 20
groups:
- scenarios: [SCENARIO]
  traces: ["poisson:rate_rps=3,duration_s=30"]
  loads: [0.5]
"""


@pytest.fixture
def suite_file(scenario_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace("SCENARIO", str(scenario_file)), encoding="utf-8")
    return path


def test_a_suite_leaves_a_leaderboard_and_entries_that_can_be_replayed(
    throttllem: Throttllem, suite_file: Path, tmp_path: Path
) -> None:
    more = "static-frequency:mhz=990,size=4"
    done = throttllem("compare", "--suite", suite_file, "--agents", more, "--out", "out")
    assert done.status == 0, done.stderr
    page = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
    assert "`max-frequency`" in page
    assert f"`{more}`" in page
    (results,) = tmp_path.glob("out/*/results.json")
    same = throttllem("report", "--replay", results, "--entry", 1)
    assert same.status == 0
    assert same.stdout.startswith(f"{more}, seed 0: the same")
    document = json.loads(results.read_text(encoding="utf-8"))
    document["runs"][0]["metrics"]["completed"] += 1
    results.write_text(json.dumps(document), encoding="utf-8")
    other = throttllem("report", "--replay", results)
    assert other.status == 1
    assert "completed was" in other.stdout


def test_the_leaderboard_goes_where_it_is_asked_to(
    throttllem: Throttllem, suite_file: Path, tmp_path: Path
) -> None:
    done = throttllem("compare", "--suite", suite_file, "--out", "out", "--leaderboard", "docs/board.md")
    assert done.status == 0, done.stderr
    assert (tmp_path / "docs" / "board.md").read_text(encoding="utf-8").startswith("# Leaderboard: suite")
    assert "docs/board.md" in done.stdout


def test_an_unknown_suite_is_wrong_input(throttllem: Throttllem) -> None:
    done = throttllem("compare", "--suite", "papers")
    assert done.status == 2
    assert "did you mean 'paper'" in done.stderr
