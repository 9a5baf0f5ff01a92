"""Fifty kills at random moments, and every other mishap with every fault, through real pynvml.

`scripts/guardian_trials.py` runs more of them and measures how long GPUs wait; here they must only be given
back.
"""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.evaluation.guardian_trials.events import EVENTS
from throttllem_env.evaluation.guardian_trials.stage import FAULTS, Trial
from throttllem_env.evaluation.guardian_trials.summary import Outcome, document, kills, mishaps, run_all


def run(trials: list[Trial], nvml_double: Any) -> list[Outcome]:
    with tempfile.TemporaryDirectory(prefix="trials-") as name:
        path = Path(name) / "gpus"
        return list(run_all(trials, nvml_double.environment(path), path))


@pytest.mark.parametrize("part", range(5))
def test_fifty_kills_of_a_controller_leave_no_gpu_locked(nvml_double: Any, part: int) -> None:
    trials = kills(50)[part::5]
    outcomes = run(trials, nvml_double)
    assert len(outcomes) == 10
    assert {outcome.trial.moment for outcome in outcomes} == {"any", "first", "later"}
    assert [outcome.problem for outcome in outcomes if outcome.problem] == []
    assert all(outcome.waited_s is not None for outcome in outcomes)
    assert sum(outcome.sets for outcome in outcomes) > 0, "else nothing was at stake"


@pytest.mark.parametrize("kind", EVENTS)
def test_every_mishap_with_every_fault_leaves_no_gpu_locked(nvml_double: Any, kind: str) -> None:
    trials = [trial for trial in mishaps(1) if trial.kind == kind]
    outcomes = run(trials, nvml_double)
    assert {outcome.trial.fault for outcome in outcomes} >= FAULTS.keys() - {"none"}
    assert [(outcome.trial.fault, outcome.problem) for outcome in outcomes if outcome.problem] == []
    assert sum(outcome.sets for outcome in outcomes) > 0


def test_results_are_counted_by_event_and_fault() -> None:
    outcomes = [
        Outcome(Trial(), 0.5, True, 7),
        Outcome(Trial(seed=1), 1.5, False, 1),
        Outcome(Trial(fault="lost"), None, True, 2, "waited"),
    ]
    results = document(outcomes, {"command": "x"})
    assert results["sets"] == 10
    assert results["summary"][0] == {
        "event": "controller killed",
        "fault": "none",
        "trials": 2,
        "locked": 1,
        "restored": 2,
        "median_s": 1.0,
        "longest_s": 1.5,
    }
    assert results["summary"][1]["restored"] == 0
    assert results["problems"][0]["problem"] == "waited"
