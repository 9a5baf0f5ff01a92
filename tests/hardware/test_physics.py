"""Physics behaves as physics: slower at lower clocks, affine in KV, and held to the calibration figures."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.hardware import GPUS, MODELS, IterationWork, Physics, kv_blocks, load_profile

GPU = GPUS["a100-40gb"]
PROFILE = load_profile("llama2-13b", "a100-40gb")
PHYSICS = {size: Physics(PROFILE, GPU, size, 256) for size in PROFILE.latency}
CALIBRATION = Path(__file__).parents[2].parent / "shared" / "calibration"

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
    assert max(powers) <= GPU.power_limit_w


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


def calibration_rows(name: str) -> list[dict[str, str]]:
    """Rows of a calibration file; without it the test skips, in CI it fails."""
    path = CALIBRATION / name
    if not path.is_file():
        message = f"{name} is not beside the repository: calibration is not checked"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with path.open() as file:
        return list(csv.DictReader(file))


def test_slowdown_against_measured_layer_times() -> None:
    """Decode kernels at 450 to 1170 MHz, against A800: as good as the profile says."""
    rows = calibration_rows("a800_decode_frequency.csv")
    key = ("tensor_parallel", "input_tokens", "output_tokens", "batch_size")

    def layer_us(row: dict[str, str]) -> float:
        return float(row["attention_layer_us"]) + float(row["ffn_layer_us"])

    top = {tuple(r[k] for k in key): layer_us(r) for r in rows if r["frequency_mhz"] == "1410"}
    errors = []
    for row in rows:
        mhz, batch = int(row["frequency_mhz"]), int(row["batch_size"])
        if 450 <= mhz < 1410:
            physics = PHYSICS[int(row["tensor_parallel"])]
            kernel_s = [physics.at(f).decode_fixed_s[batch] for f in (mhz, 1410)]
            measured = layer_us(row) / top[tuple(row[k] for k in key)]
            errors.append(abs(kernel_s[0] / kernel_s[1] / measured - 1))
    assert len(errors) == 96
    assert np.mean(errors) < 0.06


def test_power_against_measured_power() -> None:
    """One GPU while decoding at 450 to 1410 MHz, against A800."""
    rows = calibration_rows("a800_decode_frequency.csv")
    errors = []
    for row in rows:
        if (mhz := int(row["frequency_mhz"])) >= 450:
            size = int(row["tensor_parallel"])
            predicted = PHYSICS[size].at(mhz).decode_power_w(int(row["batch_size"]))
            errors.append(abs(predicted * size / float(row["power_w_all_gpus"]) - 1))
    assert np.mean(errors) < 0.055


def test_decode_times_against_the_kernel_grid() -> None:
    """Kernel time at the top clock, Llama2-13B on A100, every size."""
    rows = calibration_rows("aic012_trtllm_iteration_grid.csv")
    errors = []
    for row in rows:
        size = int(row["tp"])
        if row["model"] == "llama2-13b" and row["system"] == "a100_sxm" and row["phase"] == "decode":
            batch, context = int(row["batch"]), int(row["ctx"])
            time = PHYSICS[size].at(1410).iteration(IterationWork(batch, batch * context, 0, 0))
            errors.append(abs(time.decode_s * 1e3 / float(row["ms"]) - 1))
    assert len(errors) > 100
    assert np.mean(errors) < 0.03
