"""Profiles of live servers: iterations out of what engines say, and a short one of real servers."""

from pathlib import Path

import numpy as np
import pytest

from throttllem_env.evaluation.profiling import profile_backend
from throttllem_env.evaluation.profiling.live import steps
from throttllem_env.evaluation.realtime.host import Overshoot
from throttllem_env.hardware import IterationWork
from throttllem_env.prediction.ips import Profile, ProfileError, Samples, read_profile
from throttllem_env.scenario import load_scenario
from throttllem_env.serving.vllm.stats import EngineStats

BLOCKS = 1000


def report(number: int, running: int, prompt: int, generated: int, **more: int) -> EngineStats:
    """Iterations take 50 ms."""
    waiting, preemptions = more.get("waiting", 0), more.get("preemptions", 0)
    return EngineStats(0.05 * number, running, waiting, 0.1, number, prompt, generated, preemptions)


@pytest.mark.parametrize(
    ("after", "batch", "decode_only"),
    [
        (report(8, 3, 100, 53), 3, True),
        (report(8, 1, 100, 53), 3, True),  # two have ended
        (report(8, 4, 200, 54), 4, False),  # a prompt was computed
        (report(8, 4, 100, 52), 4, False),  # a part of one was
        (report(8, 2, 100, 52, preemptions=1), 3, False),
    ],
)
def test_an_iteration_is_known_by_its_totals(after: EngineStats, batch: int, decode_only: bool) -> None:
    (step,) = steps([report(7, 3, 100, 50), after], BLOCKS)
    assert (step.start_s, step.duration_s) == pytest.approx((0.35, 0.05))
    assert (step.batch, step.decode_only, step.kv_blocks) == (batch, decode_only, 100)


def test_gaps_are_no_iterations() -> None:
    idle, first = report(7, 0, 100, 50), report(8, 1, 150, 51)
    lost = report(10, 1, 150, 53)
    assert list(steps([idle, first, lost], BLOCKS)) == []


def rows_at(made: Profile, mhz: int) -> Samples:
    """Decode iterations at a clock."""
    return made.decode.take(made.decode.frequency_mhz == mhz)


@pytest.mark.live
def test_live_servers_are_profiled_at_the_clocks_asked_for(tmp_path: Path) -> None:
    scenario = load_scenario("llama2-13b-a100")
    with pytest.raises(ProfileError, match="jobs = 2"):
        profile_backend(scenario, tmp_path / "x.parquet", backend="vllm", jobs=2)
    with Overshoot() as overshoot:
        for seconds in (14.0, 40.0, 120.0):  # a busy machine sees less in the same time
            out = tmp_path / f"live-{seconds:.0f}.parquet"
            made = profile_backend(scenario, out, backend="vllm", sizes=(2,), clocks=2, seconds=seconds)
            lowest_mhz, top_mhz = made.info.clocks_mhz[0], made.info.clocks_mhz[-1]
            if min(len(rows_at(made, mhz)) for mhz in (lowest_mhz, top_mhz)) >= 5:
                break
    assert read_profile(out).info == made.info
    physics = scenario.physics(2)
    for mhz in lowest_mhz, top_mhz:
        rows = rows_at(made, mhz)
        work = [
            IterationWork(int(b), 16 * int(k), 0, 0) for b, k in zip(rows.batch, rows.kv_blocks, strict=True)
        ]
        modelled_s = np.array([physics.at(mhz).iteration(each).total_s for each in work])
        measured_s = rows.duration_s / rows.iterations
        assert len(rows) >= 5
        ratio = float(np.median(measured_s / modelled_s))
        assert ratio > 0.9
        if ratio > 1.1 and (late_s := overshoot.figures()["p99_s"]) > 0.01:
            pytest.skip(f"iterations took {ratio:.2f} times as long; sleeps end {late_s:.3f} s late (p99)")
        assert ratio < 1.1
