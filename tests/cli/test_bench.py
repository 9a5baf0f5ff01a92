"""`throttllem bench` prints tables and writes its figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from throttllem_env.cli import app

QUICK = ["--running", "4,8", "--decisions", "10", "--repeats", "2", "--steps", "20", "--num-envs", "2"]
QUICK += ["--requests", "2000"]


def figures(path: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["bench", *QUICK, *options, "--json", str(path)])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_decisions_go_to_the_table_and_the_file(tmp_path: Path) -> None:
    agents = "throttllem,max-frequency"
    found = figures(tmp_path / "b.json", "--parts", "decision", "--agents", agents)["decision"]
    names = ["throttllem"] * 2 + ["max-frequency"] * 2 + ["compiled part"] * 2
    assert [entry["agent"] for entry in found] == names
    assert all(len(entry["p99_ms"]) == 2 for entry in found)


@pytest.mark.parametrize(
    ("part", "expected"), [("simulator", 3), ("environment", 2), ("vector", 2), ("features", 2)]
)
def test_every_part_measures_each_figure_so_many_times(tmp_path: Path, part: str, expected: int) -> None:
    trace = "poisson:rate_rps=5,duration_s=400"
    found = figures(tmp_path / "b.json", "--parts", part, "--trace", trace)
    assert list(found) == ["scenario", "version", "trace", part]
    assert len(found[part]) == expected
    for figure in found[part]:
        assert len(figure["values"]) == 2
        assert min(figure["values"]) > 0


def test_wrong_counts_and_parts_are_named() -> None:
    for option, value, hint in (
        ("--running", "16,many", "whole numbers"),
        ("--parts", "simulater", "simulator"),
    ):
        result = CliRunner().invoke(app, ["bench", option, value])
        assert result.exit_code == 2
        assert value in result.output
        assert hint in result.output
