"""Profiles see the iterations that were run, and go on after an interruption as if there had been none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation import profiling
from throttllem_env.evaluation.profiling import choose_clocks, measuring, parts_folder, profile_backend
from throttllem_env.evaluation.profiling.cells import Step, sample, thin, watch
from throttllem_env.evaluation.profiling.traces import burst_traces, sweep_trace
from throttllem_env.prediction import AnalyticIterationTime
from throttllem_env.prediction.ips import Noise, Profile, ProfileError, check_profile, read_profile
from throttllem_env.scenario import load_scenario
from throttllem_env.serving import make_backend
from throttllem_env.serving.reference.instance import Instance
from throttllem_env.traces import Trace
from throttllem_env.types import Action

SCENARIO = load_scenario("llama2-13b-a100")
ALONE = SCENARIO.model_copy(update={"sizes": (2,)})
ENGINE = SCENARIO.engine


def watched(trace: Trace, mhz: int = 900, until_s: float = 1e6) -> list[Step]:
    backend = make_backend("reference", ALONE)
    return list(watch(backend, trace, Action(mhz, 2), 0, ENGINE.block_size, until_s))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, Path]:
    path = tmp_path_factory.mktemp("profile") / "p.parquet"
    return profile_backend(SCENARIO, path, sizes=(2, 4), clocks=2), path


def test_every_decode_iteration_is_seen_with_its_batch_and_kv() -> None:
    """Two requests by hand: prompts of 30 and 20 tokens, 5 and 3 outputs."""
    steps = watched(Trace([1.0, 1.0], [30, 20], [5, 3], "hand"))
    assert [step.decode_only for step in steps] == [False, True, True, True, True]
    assert [step.batch for step in steps] == [2, 2, 2, 1, 1]
    # Tokens stored in each iteration: 31+21, 32+22, 33, 34, in blocks of 16.
    assert [step.kv_blocks for step in steps[1:]] == [4, 4, 3, 3]
    truth = AnalyticIterationTime(SCENARIO)
    for step in steps[1:]:
        predicted = truth.decode_s(2, np.array([step.batch]), np.array([step.kv_blocks]), 900)[0]
        assert step.duration_s == pytest.approx(predicted, rel=1e-3)


def test_prefill_and_preemption_are_never_taken_for_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what the simulator really ran."""
    ran: dict[float, tuple[int, bool]] = {}
    start = Instance.start_iteration

    def spy(self: Instance, now_s: float) -> bool:
        started = start(self, now_s)
        if started and self.iteration:
            plan = self.plan
            decode = all(n == 1 and r.computed >= r.prompt_tokens for r, n in plan)
            ran[now_s] = (len(plan), decode)
        return started

    monkeypatch.setattr(Instance, "start_iteration", spy)
    rng = np.random.default_rng(0)
    n = 120
    trace = Trace(np.sort(rng.uniform(1, 4, n)), rng.integers(1, 900, n), rng.integers(1, 150, n), "mixed")
    steps = watched(trace)
    decode = [step for step in steps if step.decode_only]
    assert len(decode) > 50
    for step in decode:
        assert ran[step.start_s] == (step.batch, True)
    missed = sum(is_decode for _, is_decode in ran.values()) - len(decode)
    assert missed <= 0.1 * len(decode), "those with a preemption in them are left out"


def test_a_clock_change_is_not_measured() -> None:
    steps = watched(Trace([0.0], [10], [200], "early"), mhz=210)
    assert len(steps) < 200
    durations = [step.duration_s for step in steps if step.decode_only]
    assert max(durations) / min(durations) < 1.05, "all at the clock asked for"


def test_watching_ends_when_it_is_told_to() -> None:
    steps = watched(Trace([1.0], [10], [2000], "long"), until_s=3.0)
    assert steps[-1].start_s < 3.0 <= steps[-1].start_s + steps[-1].duration_s


def test_a_cell_covers_the_plane(small: tuple[Profile, Path]) -> None:
    decode = small[0].decode
    for size, blocks in small[0].info.kv_blocks.items():
        of_size = decode.take(decode.size == size)
        assert of_size.batch.min() < 1.1
        assert of_size.batch.max() > 230
        assert of_size.kv_blocks.max() > 0.9 * blocks
        assert of_size.kv_blocks.min() < 12
        for mhz in (210, 1410):
            assert (of_size.frequency_mhz == mhz).sum() == profiling.MAX_DECODE_ROWS
    check_profile(small[0])


def test_a_profile_says_where_it_comes_from(small: tuple[Profile, Path]) -> None:
    info = read_profile(small[1]).info
    assert (info.scenario, info.backend, info.seed) == ("llama2-13b-a100", "simulator", 0)
    assert info.noise == Noise(iteration_sigma=0.03, counter_sigma=0.01)
    assert info.kv_blocks == {2: 3239, 4: 8466}
    assert not parts_folder(small[1]).exists()


def test_noise_is_as_announced(small: tuple[Profile, Path]) -> None:
    decode = small[0].decode
    logs = np.log(decode.duration_s / decode.noise_free_duration_s)
    assert logs.std() == pytest.approx(0.03, rel=0.1)
    assert abs(logs.mean()) < 0.004


def test_windows_are_a_second_of_iterations_without_a_gap(small: tuple[Profile, Path]) -> None:
    windows = small[0].windows
    assert len(windows) > 100
    assert windows.noise_free_duration_s.min() >= 1.0
    assert windows.iterations.max() > 20
    steps = [Step(0.0, 0.6, 1, 1, True), Step(0.6, 0.6, 1, 1, False), Step(9.0, 0.6, 1, 1, True)]
    steps += [Step(9.6, 0.3, 1, 1, True), Step(9.9, 0.3, 3, 2, True)]
    quiet = sample(steps, Action(900, 2), Noise(), np.random.default_rng(0), known=True)
    assert quiet.iterations[quiet.window].tolist() == [2, 3]
    assert quiet.duration_s[quiet.window].tolist() == pytest.approx([1.2, 1.2])
    assert quiet.batch[quiet.window].tolist() == pytest.approx([1.0, 5 / 3])
    assert (~quiet.window).sum() == 4


def test_a_live_backend_gets_no_noise_and_knows_no_truth() -> None:
    steps = [Step(0.0, 0.5, 3, 7, True)]
    live = sample(steps, Action(900, 2), Noise(), np.random.default_rng(0), known=False)
    assert (live.batch[0], live.kv_blocks[0], live.duration_s[0]) == (3.0, 7.0, 0.5)
    assert np.isnan(live.noise_free_duration_s[0])


def test_thinning_keeps_rare_rows(small: tuple[Profile, Path]) -> None:
    steps = [Step(float(i), 0.5, 2, 10, True) for i in range(1000)]
    steps += [Step(2000.0 + i, 0.5, 200, 3000, True) for i in range(5)]
    rows = sample(steps, Action(900, 2), Noise(), np.random.default_rng(0), known=True)
    decode = rows.take(~rows.window)
    kept = thin(decode, 50, np.random.default_rng(0))
    assert len(kept) == 50
    assert (kept.batch == 200).sum() == 5
    assert len(thin(decode, 5000, np.random.default_rng(0))) == len(decode)


def test_an_interrupted_profile_goes_on(
    small: tuple[Profile, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the third of four cells, just before its rows are written."""
    done: list[int] = []
    measure: Callable[[Any], None] = profiling.measure_cell

    def interrupt(cell: Any) -> None:
        if len(done) == 2:
            monkeypatch.setattr(measuring, "write_profile", _killed)
        done.append(cell.mhz)
        measure(cell)

    path = tmp_path / "p.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(profiling, "measure_cell", interrupt)
        with pytest.raises(KeyboardInterrupt):
            profile_backend(SCENARIO, path, sizes=(2, 4), clocks=2)
    monkeypatch.undo()
    assert not path.exists()
    assert len(list(parts_folder(path).glob("tp*.parquet"))) == 2
    told: list[tuple[int, int]] = []
    again = profile_backend(
        SCENARIO, path, sizes=(2, 4), clocks=2, on_start=lambda _, there, of: told.append((there, of))
    )
    assert told == [(2, 4)]
    for name in again.samples.__slots__:
        np.testing.assert_array_equal(getattr(again.samples, name), getattr(small[0].samples, name))
    assert not parts_folder(path).exists()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_cells_of_other_settings_are_not_mixed_in(small: tuple[Profile, Path], tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    parts = parts_folder(path)
    parts.mkdir()
    (parts / "tp2-210mhz.parquet").write_bytes(small[1].read_bytes())
    with pytest.raises(ProfileError, match="unfinished profile of other settings"):
        profile_backend(SCENARIO, path, sizes=(2, 4), clocks=2, seed=1)
    other = replace(small[0].info, seed=1)
    assert not other.measured_alike(small[0].info)
    assert replace(small[0].info, command="x", date="y").measured_alike(small[0].info)


def test_a_finished_profile_is_not_overwritten(small: tuple[Profile, Path]) -> None:
    with pytest.raises(ProfileError, match="is there already; delete it or choose another name"):
        profile_backend(SCENARIO, small[1], sizes=(2,), clocks=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": (3,)}, "sizes: 3 is not one of llama2-13b-a100; .*Valid: 1, 2, 4"),
        ({"sizes": (2, 2)}, "must not repeat"),
        ({"clocks": 1}, "clocks = 1: accepted: 2 to 81"),
        ({"clocks": 100}, "clocks = 100: accepted: 2 to 81"),
        ({"backend": "vlm"}, "backend = 'vlm': unknown"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        profile_backend(SCENARIO, tmp_path / "p.parquet", **arguments)
    assert not list(tmp_path.iterdir())


def test_clocks_are_even_with_both_ends() -> None:
    clocks = SCENARIO.gpu_spec.clocks_mhz
    assert choose_clocks(clocks, 5) == (210, 510, 810, 1110, 1410)
    assert choose_clocks(clocks, None) == clocks


@pytest.mark.parametrize("size", SCENARIO.sizes)
def test_every_request_of_the_made_traces_fits(size: int) -> None:
    blocks, rng = SCENARIO.kv_blocks(size) - 1, np.random.default_rng(0)
    traces = [*burst_traces(blocks, ENGINE, rng), sweep_trace(blocks, ENGINE, 1.0, rng)]
    assert len(traces) >= 9
    for trace in traces:
        assert (trace.prompt_tokens + trace.output_tokens).max() <= ENGINE.max_model_len
        assert trace.prompt_tokens.min() >= 1
