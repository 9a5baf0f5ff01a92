"""The full stack over NVML's double: what its samples say, and a minute of it."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation.full_stack import figures
from throttllem_env.evaluation.full_stack.watch import Sample, sample
from throttllem_env.evaluation.realtime.host import Overshoot
from throttllem_env.gpu import DeviceFile
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.workload import prepare_workload

IDLE_W = {210: 50.0, 990: 60.0, 1410: 70.0}


def sampled(time_s: float, mhz: int, asked_mhz: float, *, busy_s: float = 0.0, **more: Any) -> Sample:
    """Two GPUs, of which a server holds the first; iterations take 50 ms and draw 200 W."""
    iterations = round(busy_s / 0.05)
    made = Sample(
        time_s,
        np.array([mhz, 1410]),
        np.array([iterations, 0]),
        np.array([busy_s, 0.0]),
        np.array([200 * busy_s, 0.0]),
        frozenset({0}),
        1,
        asked_mhz,
        0.0,
        0.05 * iterations,
        float(iterations),
    )
    return replace(made, **more)


def test_clocks_follow_once_they_had_time_to() -> None:
    at_s = [i * 0.25 for i in range(20)]
    seen = [sampled(t, 990 if t < 2.5 else 225, 990 if t < 2.3 else 210) for t in at_s]
    found = figures.clocks(seen)
    assert found == {"moments": found["moments"], "clocks": 2, "followed": found["moments"]}
    assert found["moments"] == 12
    stuck = [replace(each, mhz=np.array([1410, 1410])) for each in seen]
    assert figures.clocks(stuck)["followed"] == 0
    changing = [replace(each, instances=2) for each in seen]
    assert figures.clocks(changing)["moments"] == 0


def test_times_between_tokens_are_told_by_clock() -> None:
    slow = [sampled(t, 210, 210, busy_s=t / 2, tbt_s=2 * t) for t in np.arange(0.0, 3.0, 0.1)]
    fast = [sampled(t, 1410, 1410, busy_s=t / 2) for t in np.arange(3.0, 6.0, 0.1)]
    low, high = figures.tbt([*slow, *fast])
    assert (low["mhz"], high["mhz"]) == (210, 1410)
    assert [low["iteration_s"], high["iteration_s"]] == pytest.approx([0.05, 0.05])
    assert low["tbt_s"] == pytest.approx(0.2)
    assert high["tbt_s"] == pytest.approx(0.05)


def test_the_account_is_iterations_and_idling_besides() -> None:
    seen = [sampled(t, 210, 210, busy_s=t / 2) for t in (0.0, 1.0, 2.0)]
    assert figures.account_j(seen, IDLE_W.__getitem__, [0, 1]) == pytest.approx(200 + 50 + 2 * 70)
    assert figures.held_j(seen, IDLE_W.__getitem__) == pytest.approx(200 + 50)


def test_a_sample_is_put_together_from_metrics_and_gpus(tmp_path: Path) -> None:
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, 2)
    shown = {
        'throttllem_clock_asked_mhz{state="active",url="http://x:1"}': 990.0,
        'throttllem_clock_asked_mhz{state="warming",url="http://x:2"}': 1410.0,
        'throttllem_gpu_clock_mhz{gpu="1"}': 990.0,
        'throttllem_instance_size{state="active",url="http://x:1"}': 1.0,
        "throttllem_energy_joules_total": 5.0,
        "throttllem_time_between_tokens_seconds_sum": 2.0,
        "throttllem_time_between_tokens_seconds_count": 40.0,
    }
    seen = sample(shown, device)
    assert (seen.held, seen.instances, seen.asked_mhz, seen.mhz.tolist()) == ({1}, 1, 990.0, [1410, 1410])
    device.close()


def off_time(gpus: Path, overshoot_s: float) -> str:
    """Why this machine is too busy to hold times against each other; empty if it is not."""
    device = DeviceFile(gpus)
    late_share = int(device.gpus["late"].sum()) / int(device.gpus["iterations"].sum())
    given_up_s = int(device.gpus["given_up_ns"].max()) / 1e9
    device.close()
    if given_up_s > 0 or late_share > 0.02:
        return f"the emulated GPUs fell behind: {late_share:.1%} late, {given_up_s:.1f} s given up"
    return f"sleeps end {overshoot_s:.3f} s late (p99)" if overshoot_s > 0.02 else ""


@pytest.mark.live
def test_a_minute_of_everything_but_the_silicon(nvml_double: Any) -> None:
    from throttllem_env.evaluation.full_stack.run import Stack, document, run

    scenario = load_scenario("llama2-13b-a100")
    trace = prepare_workload("azure-conv-like", scenario, load=0.6, duration_s=60.0).trace
    with tempfile.TemporaryDirectory(prefix="stack-") as name:
        stack = Stack(scenario, trace, "throttllem", Path(name), nvml_double.environment)
        with Overshoot() as overshoot:
            outcome = run(stack)  # which also waits until GPUs are restored and nobody is left
        found = document(stack, outcome)
        why = off_time(Path(name) / "gpus", overshoot.figures()["p99_s"])
    assert found["completed"] == found["requests"] == len(trace)
    clocks = found["clocks"]
    assert clocks["locks_carried_out"] > 1
    for energy in found["energy"].values():
        assert abs(energy["gap"]) < 0.05, found["energy"]
    if why:
        pytest.skip(f"all was served and restored, but {why}")
    assert clocks["locks_carried_out"] > clocks["clocks"] > 1
    assert clocks["followed"] > 0.9 * clocks["moments"] > 10, clocks
    for row in (each for each in found["tbt_by_clock"] if each["tokens"] > 500):
        assert row["tbt_s"] == pytest.approx(row["iteration_s"], rel=0.5), found["tbt_by_clock"]
    for energy in found["energy"].values():
        assert abs(energy["gap"]) < 0.01, found["energy"]
