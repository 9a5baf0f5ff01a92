"""Fits are held to data that they have not seen, and the shipped profiles are what the fits give."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from throttllem_env.hardware.fitting import a800, grids, h100
from throttllem_env.hardware.fitting.forms import Form, five_fold_error, held_out_errors
from throttllem_env.hardware.fitting.profiles import ProfileBuilder
from throttllem_env.hardware.specs import GPUS, MODELS

PROFILES = Path(__file__).parents[2] / "throttllem_env" / "hardware" / "profiles"
LINE = Form(lambda p, rows: p[0] + p[1] * rows.x.to_numpy(float), [[1.0, 1.0]])


def line_rows(noise: float = 0.0) -> pd.DataFrame:
    x = np.arange(1.0, 41.0)
    wiggle = 1 + noise * np.where(np.arange(40) % 2, 1.0, -1.0)
    return pd.DataFrame({"x": x, "y": (3 + 2 * x) * wiggle})


def test_a_fit_finds_the_parameters_that_made_the_rows() -> None:
    assert LINE.fit(line_rows(), "y") == pytest.approx([3.0, 2.0], rel=1e-4)


def test_held_out_errors_are_those_of_rows_that_were_not_fitted_to() -> None:
    rows = line_rows()
    half = (rows.x > 20).to_numpy(float)
    rows.loc[rows.x > 20, "y"] *= 2  # what the first half cannot know
    errors = held_out_errors(LINE, rows, "y", half)
    assert errors[1.0] == pytest.approx(0.5, abs=0.01)


def test_five_folds_see_the_noise() -> None:
    assert five_fold_error(LINE, line_rows(), "y") < 1e-3
    assert five_fold_error(LINE, line_rows(noise=0.05), "y") == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("engine", grids.ENGINES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("system", ["a100_sxm", "h100_sxm"])
def test_kernel_times_are_predicted_within_6_percent(
    calibration: Path, engine: str, model: str, system: str
) -> None:
    grid = grids.load_grid(calibration, engine)
    grid = grid[(grid.model == model) & (grid.system == system)]
    assert len(grid)
    for _, rows in grid.groupby("tp"):
        errors = grids.fit_grid(rows, engine).errors
        assert errors["decode_held_out"] <= 0.06
        assert errors["prefill_held_out"] <= 0.06


def test_time_and_power_at_clocks_that_were_not_seen(calibration: Path) -> None:
    rows = a800.load_a800(calibration)
    for fit in (a800.fit_response, a800.fit_decode_power):
        assert fit(rows)[1]["held_out_450_to_1170_mhz"] <= 0.08  # type: ignore[operator]


def test_the_clock_of_least_energy_is_found(calibration: Path) -> None:
    rows = a800.load_a800(calibration)
    response, power = a800.fit_response(rows)[0], a800.fit_decode_power(rows)[0]
    excess = a800.energy_of_best_clock(rows, a800.predicted_energy(rows, response, power)) - 1
    assert len(excess) == 24
    assert excess.min() >= 0
    assert excess.mean() <= 0.03
    assert excess.max() <= 0.08


def test_prefill_power_of_lengths_that_were_not_seen(calibration: Path) -> None:
    errors = h100.fit_prefill_power(h100.load_prefill_power(calibration))[1]
    assert errors["rows"] == 70  # 84 less those at the cap
    assert errors["held_out_by_length"] <= 0.08


def test_decode_power_of_models_that_were_not_seen(calibration: Path) -> None:
    errors = h100.fit_decode_power(h100.load_decode_power(calibration))[1]
    assert errors["held_out_by_model"] <= 0.08
    assert errors["held_out_by_model"] < 0.7 * errors["held_out_constant"]


def leaves(tree: Any, name: str = "") -> dict[str, Any]:
    """Values by their path."""
    if not isinstance(tree, dict):
        return {name: tree}
    below = (leaves(branch, f"{name}/{key}") for key, branch in tree.items())
    return {path: value for found in below for path, value in found.items()}


@pytest.mark.parametrize(("model", "gpu"), [("llama2-13b", "a100-40gb"), ("llama3-70b", "h100-80gb")])
def test_shipped_profiles_are_what_the_fit_gives(calibration: Path, model: str, gpu: str) -> None:
    found = ProfileBuilder(calibration).build(model, gpu)
    assert found
    shipped = yaml.safe_load((PROFILES / f"{model}_{gpu}.yaml").read_text())
    assert {k: shipped[k] for k in ("sources", "assumed")} == {k: found[k] for k in ("sources", "assumed")}
    # On another processor a search stops elsewhere.
    assert leaves(shipped["errors"]) == pytest.approx(leaves(found["errors"]), abs=0.002)
    for section in ("response", "power"):
        assert shipped[section] == pytest.approx(found[section], rel=1e-3)
    for size, row in found["latency"].items():
        ours, host_s = shipped["latency"][size], row.pop("host_s")
        assert ours.pop("host_s") == pytest.approx(host_s, rel=0.1)  # so little that data say little of it
        assert ours == pytest.approx(row, rel=1e-3)


def test_a_parameter_without_effect_is_left_out() -> None:
    """So that a search which stops elsewhere on another processor gives the same profile."""
    batch, ctx = (axis.ravel() for axis in np.meshgrid([1, 8, 64, 256], [128, 1024, 4096]))
    rows = pd.DataFrame({"phase": "decode", "batch": batch, "ctx": ctx, "tokens": batch * ctx})
    rows["attention"] = rows.batch * rows.ctx.astype(float) ** 2
    prefill = rows.assign(phase="prefill", ms=2.0 + 0.05 * rows.tokens)
    decode = rows.assign(ms=5.0 + 0.01 * rows.batch + 1e-5 * rows.tokens)
    found = grids.fit_grid(pd.concat([decode, prefill]), "trtllm")
    assert found.decode_ms["compute_per_request"] == 0.0
    assert found.decode_ms["per_request"] == pytest.approx(0.01, rel=1e-2)


def test_a_model_that_fits_at_no_size_has_no_profile(calibration: Path) -> None:
    builder = ProfileBuilder(calibration)
    assert builder.sizes("llama3-70b", GPUS["a100-40gb"]) == [8]
    assert builder.sizes("llama3-70b", GPUS["a100-80gb"]) == [2, 4, 8]
