"""`throttllem bench` prints a table and writes its figures."""

import json
from pathlib import Path

from typer.testing import CliRunner

from throttllem_env.cli import app


def test_figures_go_to_the_table_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    options = ["--agents", "throttllem,max-frequency", "--running", "4,8", "--decisions", "10"]
    result = CliRunner().invoke(app, ["bench", *options, "--repeats", "2", "--json", str(path)])
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())["decision"]
    assert [entry["agent"] for entry in found] == ["throttllem"] * 2 + ["max-frequency"] * 2 + [
        "compiled part"
    ] * 2
    assert all(len(entry["p99_ms"]) == 2 for entry in found)
    assert result.output.count("throttllem") >= 2


def test_wrong_counts_are_named() -> None:
    result = CliRunner().invoke(app, ["bench", "--running", "16,many"])
    assert result.exit_code == 2
    assert "16,many" in result.output
