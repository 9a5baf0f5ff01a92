"""Physics behaves as physics: slower at lower clocks, affine in KV, and held to the calibration figures."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.hardware import (
    GPUS,
    MODELS,
    IterationWork,
    Physics,
    kv_blocks,
    kv_capacity_tokens,
    load_profile,
)

GPU = GPUS["a100-40gb"]
PROFILE = load_profile("llama2-13b", "a100-40gb")
PHYSICS = {size: Physics(PROFILE, GPU, size, 256) for size in PROFILE.latency}
MEASURED_GPU = GPUS["a100-80gb"]  # the board of the calibration figures
MEASURED = {
    size: Physics(load_profile("llama2-13b", "a100-80gb"), MEASURED_GPU, size, 256) for size in (1, 2, 4)
}

sizes = st.sampled_from(sorted(PHYSICS))
works = st.builds(
    IterationWork,
    st.integers(0, 256),
    st.integers(0, 130_000),
    st.integers(0, 2048),
    st.integers(0, 2048 * 8192),
).map(lambda w: w._replace(prefill_attention=w.prefill_attention if w.prefill_tokens else 0))


@given(sizes, works, st.sampled_from(GPU.clocks_mhz), st.sampled_from(GPU.clocks_mhz))
def test_a_higher_clock_never_makes_an_iteration_slower(
    size: int, work: IterationWork, a: int, b: int
) -> None:
    low, high = sorted((a, b))
    physics = PHYSICS[size]
    assert physics.at(high).iteration(work).total_s <= physics.at(low).iteration(work).total_s


@given(sizes, works, st.sampled_from(GPU.clocks_mhz), st.integers(0, 255), st.integers(0, 1000))
def test_more_work_never_takes_less_time(
    size: int, work: IterationWork, mhz: int, batch: int, kv: int
) -> None:
    table = PHYSICS[size].at(mhz)
    more = work._replace(decode_batch=max(work.decode_batch, batch), kv_tokens=work.kv_tokens + kv)
    if work.decode_batch:
        assert table.iteration(more).total_s >= table.iteration(work).total_s


@given(sizes, works, st.sampled_from(GPU.clocks_mhz))
def test_every_part_of_an_iteration_is_nonnegative_and_power_within_the_limit(
    size: int, work: IterationWork, mhz: int
) -> None:
    table = PHYSICS[size].at(mhz)
    assert min(table.iteration(work)) >= 0
    powers = (table.idle_w, table.decode_power_w(work.decode_batch), table.prefill_w)
    assert min(powers) > 0
    assert max(powers) <= GPU.power_limit_w * (1 + 1e-12)  # the capped clock is a root: rounding


@given(
    sizes, st.sampled_from(GPU.clocks_mhz), st.integers(1, 256), st.integers(0, 50_000), st.integers(1, 1000)
)
def test_decode_is_affine_in_kv(size: int, mhz: int, batch: int, kv: int, step: int) -> None:
    """So spans of iterations have closed forms."""
    table = PHYSICS[size].at(mhz)
    times = [table.iteration(IterationWork(batch, kv + k * step, 0, 0)).total_s for k in range(3)]
    assert times[2] - times[1] == pytest.approx(times[1] - times[0], rel=1e-6, abs=1e-12)


@given(
    sizes, st.sampled_from(GPU.clocks_mhz), st.integers(1, 256), st.integers(0, 50_000), st.integers(1, 2048)
)
def test_many_iterations_at_once_equal_one_at_a_time(
    size: int, mhz: int, batch: int, kv: int, tokens: int
) -> None:
    table = PHYSICS[size].at(mhz)
    decode = table.iteration(IterationWork(batch, kv, 0, 0)).total_s
    assert table.decode_iterations_s(np.array([batch]), np.array([float(kv)]))[0] == pytest.approx(decode)
    # Prefill on the side of decode: the projection takes the weights' share at batch 0.
    mixed = table.iteration(IterationWork(1, kv, tokens, tokens**2)).total_s
    alone = table.iteration(IterationWork(1, kv, 0, 0)).total_s
    added = table.prefill_chunks_s(np.array([float(tokens)]), np.array([float(tokens**2)]))[0]
    assert added == pytest.approx(mixed - alone, rel=0.02, abs=2e-4)


@settings(deadline=None)
@given(sizes, st.integers(1, 256))
def test_energy_against_the_clock_is_u_shaped(size: int, batch: int) -> None:
    """The least energy of an iteration lies inside the clock range, not at either end."""
    work = IterationWork(batch, batch * 500, 0, 0)
    energy = []
    for mhz in GPU.clocks_mhz:
        table = PHYSICS[size].at(mhz)
        time = table.iteration(work)
        energy.append(table.idle_w * time.host_s + table.decode_power_w(batch) * time.decode_s)
    best = int(np.argmin(energy))
    assert 0 < best < len(energy) - 1


@pytest.mark.parametrize(("size", "tokens"), [(1, 10_000), (2, 50_000), (4, 130_000)])
def test_kv_capacity_is_the_published_one(size: int, tokens: int) -> None:
    blocks = kv_blocks(GPU, MODELS["llama2-13b"], size, 16)
    assert 16 * blocks == pytest.approx(tokens, rel=0.05)


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'llama2-13b_a100-40gb'"):
        load_profile("llama2-13b", "a100-4gb")


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a calibration file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_slowdown_against_measured_layer_times(calibration: Path) -> None:
    """Decode kernels at 450 to 1170 MHz, against A800: as good as the profile says."""
    rows = rows_of(calibration / "a800_decode_frequency.csv")
    key = ("tensor_parallel", "input_tokens", "output_tokens", "batch_size")

    def layer_us(row: dict[str, str]) -> float:
        return float(row["attention_layer_us"]) + float(row["ffn_layer_us"])

    top = {tuple(r[k] for k in key): layer_us(r) for r in rows if r["frequency_mhz"] == "1410"}
    errors = []
    for row in rows:
        mhz, batch = int(row["frequency_mhz"]), int(row["batch_size"])
        if 450 <= mhz < 1410:
            physics = MEASURED[int(row["tensor_parallel"])]
            kernel_s = [physics.at(f).decode_fixed_s[batch] for f in (mhz, 1410)]
            measured = layer_us(row) / top[tuple(row[k] for k in key)]
            errors.append(abs(kernel_s[0] / kernel_s[1] / measured - 1))
    assert len(errors) == 96
    assert np.mean(errors) < 0.06


def test_power_against_measured_power(calibration: Path) -> None:
    """One GPU while decoding at 450 to 1410 MHz, against A800."""
    rows = rows_of(calibration / "a800_decode_frequency.csv")
    errors = []
    for row in rows:
        if (mhz := int(row["frequency_mhz"])) >= 450:
            size = int(row["tensor_parallel"])
            predicted = MEASURED[size].at(mhz).decode_power_w(int(row["batch_size"]))
            errors.append(abs(predicted * size / float(row["power_w_all_gpus"]) - 1))
    assert np.mean(errors) < 0.055


def test_decode_times_against_the_kernel_grid(calibration: Path) -> None:
    """Kernel time at the top clock, Llama2-13B on A100, every size."""
    rows = rows_of(calibration / "aic012_trtllm_iteration_grid.csv")
    errors = []
    for row in rows:
        size = int(row["tp"])
        if row["model"] == "llama2-13b" and row["system"] == "a100_sxm" and row["phase"] == "decode":
            batch, context = int(row["batch"]), int(row["ctx"])
            time = MEASURED[size].at(1410).iteration(IterationWork(batch, batch * context, 0, 0))
            errors.append(abs(time.decode_s * 1e3 / float(row["ms"]) - 1))
    assert len(errors) > 100
    assert np.mean(errors) < 0.03


@pytest.mark.parametrize(("model", "gpu"), [(m, g) for m in MODELS for g in GPUS])
def test_every_pair_has_a_profile_of_every_size_that_fits(model: str, gpu: str) -> None:
    sizes = [
        size
        for size in ((2, 4, 8) if model == "llama3-70b" else (1, 2, 4))  # of the kernel tables
        if kv_capacity_tokens(GPUS[gpu], MODELS[model], size) >= MODELS[model].max_model_len
    ]
    profile = load_profile(model, gpu)
    assert sorted(profile.latency) == sizes
    for size in sizes:
        physics = Physics(profile, GPUS[gpu], size, 256)
        times = [
            physics.at(mhz).iteration(IterationWork(32, 16_000, 512, 512**2)).total_s
            for mhz in GPUS[gpu].clocks_mhz
        ]
        assert times == sorted(times, reverse=True)


def test_the_40_gb_board_is_slower_by_its_bandwidth_where_memory_binds() -> None:
    slow, fast = (load_profile("llama2-13b", gpu).latency[1] for gpu in ("a100-40gb", "a100-80gb"))
    assert slow.weights_s / fast.weights_s == pytest.approx(2039 / 1555, rel=1e-3)
    assert slow.compute_per_request_s == fast.compute_per_request_s


H100 = GPUS["h100-80gb"]
H100_PROFILE = load_profile("llama3-70b", "h100-80gb")


def test_a_long_prefill_at_the_cap_runs_at_the_clock_that_the_cap_leaves() -> None:
    """As measured: from about 1680 MHz on, two H100s draw 700 W each, whatever the clock asked for."""
    physics = Physics(H100_PROFILE, H100, 2, 256)
    top, high, low = (physics.at(mhz) for mhz in (1980, 1800, 1080))
    assert top.prefill_w == pytest.approx(H100.power_limit_w)
    assert top.prefill_mhz == high.prefill_mhz < 1680
    assert low.prefill_mhz == 1080
    prompt = IterationWork(0, 0, 2048, 2048**2)
    assert top.iteration(prompt).prefill_s == pytest.approx(high.iteration(prompt).prefill_s, rel=0.01)
    assert low.iteration(prompt).prefill_s > 1.2 * top.iteration(prompt).prefill_s


@given(st.floats(210.0, 400.0), st.sampled_from(GPU.clocks_mhz), st.integers(1, 256))
def test_a_power_cap_is_kept_and_paid_for_in_time(cap_w: float, mhz: int, batch: int) -> None:
    free, capped = PHYSICS[4].at(mhz), Physics(PROFILE, GPU, 4, 256, power_cap_w=cap_w).at(mhz)
    assert capped.decode_power_w(batch) <= cap_w * (1 + 1e-9)
    assert capped.prefill_w <= cap_w * (1 + 1e-9)
    assert capped.prefill_mhz <= mhz * (1 + 1e-9)
    work = IterationWork(batch, 500 * batch, 1024, 1024**2)
    assert capped.iteration(work).total_s >= free.iteration(work).total_s
    if free.prefill_w <= cap_w and free.decode_power_w(batch) <= cap_w:
        assert capped.iteration(work) == free.iteration(work)


def test_a_cap_below_what_the_lowest_clock_draws_leaves_the_lowest_clock() -> None:
    table = Physics(PROFILE, GPU, 4, 256, power_cap_w=50.0).at(1410)
    assert table.prefill_mhz == GPU.clocks_mhz[0]


def test_short_prompts_draw_less_than_long_ones() -> None:
    table = PHYSICS[4].at(1410)
    watts = [table.prefill_power_w(n) for n in (16, 128, 1024, 4096)]
    assert watts == sorted(watts)
    assert watts[0] < 0.5 * watts[-1]
    assert watts[-1] == pytest.approx(table.prefill_w, rel=0.01)


def test_idle_power_rises_with_the_locked_clock() -> None:
    """H100, measured: 79 to 80 W at 360 MHz, 155 to 165 W at 1830 MHz."""
    physics = Physics(H100_PROFILE, H100, 4, 256)
    assert physics.at(360).idle_w == pytest.approx(80, rel=0.05)
    assert physics.at(1830).idle_w == pytest.approx(160, rel=0.05)
