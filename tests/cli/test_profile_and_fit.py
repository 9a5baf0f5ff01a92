"""`throttllem profile` and `throttllem fit`, from help to files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Throttllem = Callable[..., Any]


@pytest.mark.parametrize("command", ["profile", "fit"])
def test_help_explains_every_option_and_gives_an_example(throttllem: Throttllem, command: str) -> None:
    done = throttllem(command, "--help")
    assert done.status == 0
    assert f"throttllem {command} " in done.stdout.partition("Options")[2]
    options = {"profile": "scenario backend out sizes clocks seed jobs", "fit": "out seed"}[command]
    for option in options.split():
        assert f"--{option} " in done.stdout
    assert "[/" not in done.stdout


def test_profile_then_fit(throttllem: Throttllem, tmp_path: Path, scenario_file: Path) -> None:
    done = throttllem(
        "profile", "--scenario", scenario_file, "--sizes", 2, "--clocks", 3, "--out", "p.parquet"
    )
    assert (done.status, done.stderr) == (0, "")
    assert "900 decode iterations" in done.stdout
    done = throttllem("fit", "p.parquet", "--out", "ips")
    assert (done.status, done.stderr) == (0, "")
    assert "Errors on held-out rows, against the noise-free rate" in done.stdout
    for name in ("model.json", "trees-tp2.txt", "table.npz", "report.json", "report.md"):
        assert (tmp_path / "ips" / name).is_file()
        assert f"ips/{name}" in done.stdout
    report = json.loads((tmp_path / "ips" / "report.json").read_text(encoding="utf-8"))
    assert report["command"] == "throttllem fit p.parquet --out ips --seed 0"
    assert report["profile"]["command"].startswith(f"throttllem profile --scenario {scenario_file}")


def test_profile_goes_on_after_an_interruption(
    throttllem: Throttllem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from throttllem_env.evaluation import profiling

    measure = profiling.measure_cell
    arguments = ("profile", "--sizes", "2", "--clocks", "2", "--out", "p.parquet")

    def interrupt(cell: Any) -> None:
        if cell.mhz == 1410:
            raise KeyboardInterrupt
        measure(cell)

    with monkeypatch.context() as patch:
        patch.setattr(profiling, "measure_cell", interrupt)
        done = throttllem(*arguments)
    assert done.status == 130
    assert "error: interrupted" in done.stderr
    done = throttllem(*arguments)
    assert done.status == 0
    assert "continuing: 1 of 2 cells were there" in done.stderr
    assert (tmp_path / "p.parquet").is_file()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from throttllem_env.cli import app\n"
        "try:\n"
        "    app(['fit', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'pandas', 'pyarrow', 'lightgbm', 'scipy', 'joblib'} & set(sys.modules)\n"
        "sys.exit(repr(sorted(heavy)) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
