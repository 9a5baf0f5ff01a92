"""Measurements of GPUs are one more thing that the profiles are held to."""

import json
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation.fidelity.measured import MeasurementError, measured_section, read_measurement
from throttllem_env.hardware import GPUS, IterationWork, Physics, load_profile


def document(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """As the script writes it."""
    gpu, date = {"name": name, "driver": "550.54.15"}, "2026-11-29T10:00:00+00:00"
    return {"kind": "measure_gpu", "format": 1, "date": date, "gpu": gpu, "cells": cells}


def cell(phase: str, number: int, seconds: float, joules: float | None, mhz: int = 1410) -> dict[str, Any]:
    """A decode of so many requests at 1000 tokens, or a prompt of so many tokens."""
    decode = phase == "decode"
    whole = {"how": "measured", "iteration_s": seconds} | ({} if joules is None else {"energy_j": joules})
    return {
        "model": "llama2-13b",
        "phase": phase,
        "batch": number if decode else 0,
        "context": 1000 if decode else 0,
        "tokens": 0 if decode else number,
        "depths": {"10": {"clock_mhz": 999}, "40": {"clock_mhz": mhz}},
        "whole": whole,
    }


def ours(mhz: int, batch: int) -> tuple[float, float]:
    """Seconds and joules of a decode according to the shipped profile."""
    gpu = GPUS["a100-40gb"]
    table = Physics(load_profile("llama2-13b", "a100-40gb"), gpu, 1, 256).at(mhz)
    seconds = table.iteration(IterationWork(batch, batch * 1000, 0, 0)).decode_s
    return seconds, seconds * table.decode_power_w(batch)


def rows_of(folder: Path) -> list[list[str]]:
    section = measured_section(folder)
    assert section is not None
    return [list(row) for row in section.tables[0].rows]


def write(folder: Path, content: Any, name: str = "a100.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def test_ratios_are_ours_over_measured_at_the_clock_that_was_measured(tmp_path: Path) -> None:
    cells = []
    for batch, mhz in ((1, 1410), (16, 1200), (64, 1005)):
        seconds, joules = ours(mhz, batch)
        # Measured: twice our time at half our power, at a clock that is read between two supported ones.
        cells.append(cell("decode", batch, 2 * seconds, joules, mhz + 4))
    write(tmp_path, document("NVIDIA A100-SXM4-40GB", cells))
    (row,) = rows_of(tmp_path)
    assert row[:6] == ["NVIDIA A100-SXM4-40GB", "2026-11-29", "550.54.15", "llama2-13b", "decode", "3"]
    assert row[6:] == ["0.50 (0.50 to 0.50)", "2.00 (2.00 to 2.00)", "1.00 (1.00 to 1.00)"]


def test_without_power_only_times_are_held(tmp_path: Path) -> None:
    write(tmp_path, document("NVIDIA A100-SXM4-40GB", [cell("prefill", 512, 0.1, None)]))
    (row,) = rows_of(tmp_path)
    assert row[4:6] == ["prefill", "1"]
    assert float(row[6].split()[0]) > 0
    assert row[7:] == ["–", "–"]


def test_a_gpu_without_a_profile_is_named(tmp_path: Path) -> None:
    write(tmp_path, document("NVIDIA L40S", [cell("decode", 1, 0.1, 5.0)]))
    assert [row[6] for row in rows_of(tmp_path)] == ["no profile", "no profile"]


def test_cells_that_were_not_measured_or_are_too_large_are_left_out(tmp_path: Path) -> None:
    seconds, joules = ours(1410, 8)
    missing = cell("decode", 4, 1.0, 1.0) | {"whole": {"how": "does not fit into the memory"}}
    cells = [cell("decode", 8, seconds, joules), cell("decode", 512, 1.0, 1.0), missing]
    write(tmp_path, document("NVIDIA A100-SXM4-40GB", cells))
    (row,) = rows_of(tmp_path)
    assert row[5:7] == ["1", "1.00 (1.00 to 1.00)"]


def test_all_files_of_the_folder_are_read(tmp_path: Path) -> None:
    write(tmp_path, document("NVIDIA A100-SXM4-40GB", [cell("decode", 1, 0.1, 5.0)]))
    write(tmp_path, document("NVIDIA H200", [cell("decode", 1, 0.1, 5.0, 1980)]), "h200.json")
    assert [row[0] for row in rows_of(tmp_path)] == ["NVIDIA A100-SXM4-40GB", "NVIDIA H200"]


def test_there_is_no_section_without_a_measurement(tmp_path: Path) -> None:
    assert measured_section(tmp_path) is None
    assert measured_section(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "kind = None: must be 'measure_gpu'"),
        ({"kind": "bench"}, "kind = 'bench'"),
        ({"kind": "measure_gpu", "format": 2}, "format = 2: must be 1"),
        ({"kind": "measure_gpu", "format": 1, "date": "2026"}, "gpu is missing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        read_measurement(write(tmp_path, content))


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(MeasurementError, match=r"broken\.json: no JSON"):
        measured_section(tmp_path)


def test_results_of_other_scripts_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"command": "scripts/guardian_trials.py"})
    assert measured_section(tmp_path) is None
