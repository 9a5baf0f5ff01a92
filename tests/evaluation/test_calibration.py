"""Rated loads are the largest that a size sustains, and freezing writes what was found."""

from pathlib import Path

import numpy as np
import pytest

from throttllem_env.evaluation.calibration import (
    GRID_RPS,
    Calibrator,
    Trial,
    freeze_scenario,
    poisson_trace,
    sustains,
)
from throttllem_env.scenario import load_scenario
from throttllem_env.slo import Slo
from throttllem_env.traces import generate, limit_lengths

SCENARIO = load_scenario("llama2-13b-a100")
LENGTHS, _ = limit_lengths(generate("azure-conv-like", 600.0, 0), 4096)
SLO = Slo(27.6, 0.2, 0.99)


def trial(**change: object) -> Trial:
    calm = {
        "wait_s": np.full(200, 0.1),
        "e2e_s": np.full(200, 10.0),
        "preempted": 0,
        "tbt_mean_s": 0.05,
        "tokens": 1000,
        "energy_j": 1.0,
        "elapsed_s": 1.0,
    }
    return Trial(**(calm | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "e2e_too", "holds"),
    [
        ({}, True, True),
        ({"tbt_mean_s": 0.21}, False, False),
        ({"preempted": 3}, False, False),
        ({"preempted": 2}, False, True),
        ({"wait_s": np.linspace(0.0, 1.2, 200)}, False, False),
        ({"wait_s": np.r_[np.full(199, 0.1), np.inf]}, False, False),
        ({"e2e_s": np.full(200, 30.0)}, False, True),
        ({"e2e_s": np.full(200, 30.0)}, True, False),
    ],
)
def test_what_a_size_must_keep_to_sustain_a_rate(
    change: dict[str, object], e2e_too: bool, holds: bool
) -> None:
    assert sustains([trial(**change)], SLO, e2e_too=e2e_too) is holds


def test_poisson_trials_have_the_lengths_of_the_trace() -> None:
    trace = poisson_trace(LENGTHS, 5.0, 1000.0, seed=3)
    assert len(trace) == pytest.approx(5000, rel=0.05)
    gaps = np.diff(trace.arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)
    pairs = set(zip(LENGTHS.prompt_tokens.tolist(), LENGTHS.output_tokens.tolist(), strict=True))
    assert set(zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True)) <= pairs


def test_the_rated_step_is_the_last_that_is_sustained() -> None:
    """On a fake that sustains up to a known step."""

    class Fake(Calibrator):
        def trials(self, size: int, step: int) -> list[Trial]:
            return [trial(tbt_mean_s=0.1 if step <= 37 else 0.3)]

    search = Fake(SCENARIO, LENGTHS, duration_s=1.0, seeds=1, jobs=1)
    assert search.rated_step(4, SLO, e2e_too=False, highest=1000) == 37
    assert search.rated_step(4, SLO, e2e_too=False, highest=20) == 20


@pytest.mark.parametrize("guess", [1, 2, 36, 37, 38, 60, 1000])
def test_a_wrong_first_guess_costs_trials_but_changes_nothing(guess: int) -> None:
    class Fake(Calibrator):
        def trials(self, size: int, step: int) -> list[Trial]:
            return [trial(tbt_mean_s=0.1 if step <= 37 else 0.3)]

        def _guess(self, size: int, slo: Slo, *, e2e_too: bool, highest: int) -> int:
            return min(guess, highest)

    search = Fake(SCENARIO, LENGTHS, duration_s=1.0, seeds=1, jobs=1)
    assert search.rated_step(4, SLO, e2e_too=False, highest=1000) == 37


def test_a_size_alone_is_really_that_size() -> None:
    search = Calibrator(SCENARIO, LENGTHS, duration_s=60.0, seeds=1, jobs=1)
    energy = {size: search.trials(size, round(0.3 / GRID_RPS))[0].energy_j for size in SCENARIO.sizes}
    assert energy[1] < energy[2] < energy[4]


def test_freezing_writes_a_valid_scenario(tmp_path: Path) -> None:
    """Short trials: the figures differ from the shipped ones, their order does not."""
    told: list[str] = []
    path = tmp_path / "frozen.yaml"
    base = SCENARIO.model_copy(update={"sizes": (2, 4)})
    written = freeze_scenario(
        base,
        "azure-conv-like:duration_s=600",
        jobs=1,
        out=path,
        progress=told.append,
        duration_s=40.0,
        seeds=1,
    )
    assert load_scenario(path) == written
    assert written.version == base.version + 1
    assert 0 < written.rated_rps(2) <= written.rated_rps(4)
    assert written.rated_rps(2, 0.75) <= written.rated_rps(2) <= written.rated_rps(2, 1.5)
    assert written.slo.e2e_s
    assert len(told) == 1 + 3  # the largest size, then the smaller one at three SLO scales
