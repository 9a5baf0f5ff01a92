"""A run and its file are the same to the last bit."""

import dataclasses
import math

import numpy as np
import pytest

from throttllem_env.controller.watchdog import WatchdogEvent
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.results import results, run_entry
from throttllem_env.evaluation.sweeps.run_file import ARRAYS, Run, dump_run, load_run
from throttllem_env.serving import Outcome
from throttllem_env.serving.timeline import COLUMNS


@pytest.fixture(params=range(6))
def run(request: pytest.FixtureRequest, comparison: Comparison) -> Run:
    found: Run = comparison.runs[request.param]
    return found


def test_a_run_comes_back_to_the_last_bit(run: Run) -> None:
    again = load_run(dump_run(run))
    for name in ("agent", "seed", "trace_digest", "past_digest", "over_length", "speed"):
        assert getattr(again, name) == getattr(run, name)
    ours, theirs = run.result.records, again.result.records
    for name in ARRAYS:
        before, after = getattr(ours.requests, name), getattr(theirs.requests, name)
        assert before.dtype == after.dtype
        assert before.tobytes() == after.tobytes()
    for name in ("tbt_gap_s", "tbt_tokens"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
    for name in COLUMNS:
        assert run.result.timeline.column(name).tobytes() == again.result.timeline.column(name).tobytes()
    assert (theirs.energy, theirs.gpu_seconds) == (ours.energy, ours.gpu_seconds)
    assert theirs.tbt_total_s == ours.tbt_total_s
    assert again.result.metrics == run.result.metrics
    assert (again.result.control, again.result.iteration_time) == (
        run.result.control,
        run.result.iteration_time,
    )


def test_what_a_watchdog_did_comes_back_and_stands_in_the_results(comparison: Comparison, run: Run) -> None:
    events = WatchdogEvent(31.25, "attainment", 0.9, 40, 0.0), WatchdogEvent(90.5, "quiet", 1.0, 50, 0.25)
    result = dataclasses.replace(run.result, watchdog=events)
    again = load_run(dump_run(dataclasses.replace(run, result=result)))
    assert again.result.watchdog == events
    shown = run_entry(comparison, again)["watchdog"]
    assert [(event["time_s"], event["reason"]) for event in shown] == [(31.25, "attainment"), (90.5, "quiet")]
    assert run_entry(comparison, run)["watchdog"] == []


def test_results_do_not_tell_where_runs_come_from(comparison: Comparison) -> None:
    read = tuple(load_run(dump_run(run)) for run in comparison.runs)
    again = dataclasses.replace(comparison, runs=read)
    for part in ("runs", "summary"):
        assert results(again, [])[part] == results(comparison, [])[part]


def test_what_never_happened_comes_back_too(run: Run) -> None:
    """Requests without a first token and metrics without a value, which JSON has no word for."""
    requests = run.result.records.requests
    lost = dataclasses.replace(
        requests,
        first_token_s=np.full_like(requests.first_token_s, np.nan),
        outcome=np.full_like(requests.outcome, Outcome.REJECTED),
    )
    metrics = run.result.metrics | {"ttft_p99_s": math.inf, "energy_per_request_j": math.nan}
    records = dataclasses.replace(run.result.records, requests=lost)
    result = dataclasses.replace(run.result, metrics=metrics, records=records)
    again = load_run(dump_run(dataclasses.replace(run, result=result))).result
    assert np.isnan(again.records.requests.first_token_s).all()
    assert again.records.requests.count(Outcome.REJECTED) == len(requests.outcome)
    assert again.metrics["ttft_p99_s"] == math.inf
    assert math.isnan(again.metrics["energy_per_request_j"])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_part_of_a_file_is_refused(run: Run, share: float) -> None:
    data = dump_run(run)
    with pytest.raises((ValueError, KeyError)):
        load_run(data[: int(share * len(data))])
