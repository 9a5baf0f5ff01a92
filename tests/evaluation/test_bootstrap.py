"""Intervals cover the truth, vanish where nothing varies, and profit from pairing."""

from dataclasses import replace

import numpy as np
import pytest

from throttllem_env.evaluation import bootstrap
from throttllem_env.evaluation.bootstrap import (
    Blocks,
    block_edges_s,
    paired,
    ratio_interval,
    run_blocks,
    saving,
)
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.types import FloatArray


def blocks(energy_j: FloatArray, seeds: int = 1, duration_s: FloatArray | None = None) -> Blocks:
    n = len(energy_j)
    per_seed = n // seeds
    return Blocks(
        seed=np.repeat(np.arange(seeds), per_seed),
        index=np.tile(np.arange(per_seed), seeds),
        cluster=np.arange(n),
        duration_s=np.full(n, 300.0) if duration_s is None else duration_s,
        energy_j=energy_j,
        tokens=np.full(n, 1000.0),
        arrived=np.full(n, 100.0),
        attained=np.full(n, 99.0),
    )


def test_blocks_add_up_to_the_run(comparison: Comparison) -> None:
    for run in comparison.runs:
        cut = run_blocks(run.result, comparison.slo, run.seed, replica=True)
        metrics = run.result.metrics
        assert cut.energy_j.sum() == pytest.approx(metrics["energy_j"])
        assert cut.duration_s.sum() == pytest.approx(metrics["duration_s"])
        assert cut.arrived.sum() == metrics["requests"]
        assert cut.attained.sum() == metrics["requests"] - metrics["slo_violations"]
        assert cut.tokens.sum() == run.result.records.requests.generated_tokens.sum()


def test_energy_is_interpolated_at_block_edges(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK_S", 7.5)
    run = comparison.runs[0]
    cut = run_blocks(run.result, comparison.slo, 0, replica=True)
    line = run.result.timeline
    assert len(cut) == round(float(run.result.metrics["duration_s"]) / 7.5)
    assert cut.energy_j.sum() == pytest.approx(run.result.metrics["energy_j"])
    expected = np.interp(7.5, line.time_s, line.energy_j)
    assert cut.energy_j[0] == pytest.approx(expected)
    assert (cut.energy_j > 0).all()


def test_a_constant_has_an_interval_of_no_width() -> None:
    assert ratio_interval(np.full(12, 5.0), np.full(12, 2.0), np.arange(12)) == (2.5, 2.5)


def test_a_short_last_block_adds_no_width() -> None:
    # Constant power: energy follows the length of the block.
    duration_s = np.array([300.0] * 5 + [160.0])
    interval = bootstrap.energy_interval(blocks(duration_s * 500.0, duration_s=duration_s), runs=1)
    assert interval == pytest.approx((830_000.0, 830_000.0))


def test_a_rest_of_less_than_half_a_block_belongs_to_the_last_one() -> None:
    assert block_edges_s(360.0).tolist() == [0.0, 360.0]
    assert block_edges_s(450.0).tolist() == [0.0, 300.0, 450.0]
    assert block_edges_s(60.0).tolist() == [0.0, 60.0]


def test_a_few_blocks_say_nothing() -> None:
    assert ratio_interval(np.ones(4), np.ones(4), np.arange(4)) is None
    assert ratio_interval(np.ones(40), np.ones(40), np.arange(40) % 4) is None
    assert ratio_interval(np.zeros(6), np.zeros(6), np.arange(6)) is None


def test_repeating_the_same_blocks_does_not_narrow_the_interval() -> None:
    """Replicas of one trace are no new evidence about its load."""
    load = np.random.default_rng(2).gamma(4.0, 1000.0, 12)
    once = ratio_interval(load, np.ones(12), np.arange(12))
    ten_times = ratio_interval(np.tile(load, 10), np.ones(120), np.tile(np.arange(12), 10))
    assert once
    assert ten_times == pytest.approx(once)


def test_synthetic_seeds_are_units_of_their_own(comparison: Comparison) -> None:
    run = comparison.runs[0]

    def cluster(seed: int, *, replica: bool) -> list[int]:
        return [int(c) for c in run_blocks(run.result, comparison.slo, seed, replica=replica).cluster]

    assert not set(cluster(0, replica=False)) & set(cluster(1, replica=False))
    assert cluster(0, replica=True) == cluster(1, replica=True)


def test_the_same_blocks_give_the_same_interval() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=20)
    first, again = (ratio_interval(values, np.ones(20), np.arange(20)) for _ in range(2))
    assert first == again != ratio_interval(values, np.ones(20), np.arange(20), seed=1)


def test_about_95_of_100_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        values = rng.normal(10.0, 2.0, 60)
        low, high = ratio_interval(values, np.ones(60), np.arange(60), resamples=400) or (0.0, 0.0)
        covered += low <= 10.0 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_pairing_removes_what_blocks_have_in_common() -> None:
    load = np.random.default_rng(1).gamma(4.0, 1000.0, 24)
    first = blocks(load, seeds=2)
    share, interval = saving(blocks(0.75 * load, seeds=2), first)
    assert share == pytest.approx(0.25)
    assert interval == pytest.approx((0.25, 0.25))
    # The energies themselves vary a lot.
    low, high = bootstrap.energy_interval(first, runs=2) or (0.0, 0.0)
    assert (high - low) / low > 0.1


def test_pairing_uses_the_blocks_that_both_have() -> None:
    first = blocks(np.arange(1.0, 7.0), seeds=3)
    other = first.rows(np.array([5, 4, 1, 0]))
    ours, theirs = paired(other, first)
    assert ours.energy_j.tolist() == theirs.energy_j.tolist() == [1.0, 2.0, 5.0, 6.0]
    assert ours.seed.tolist() == [0, 0, 2, 2]


def test_without_common_blocks_there_is_no_saving() -> None:
    first = blocks(np.ones(2))
    share, interval = saving(replace(first, seed=first.seed + 1), first)
    assert np.isnan(share)
    assert interval is None


def test_attainment_and_tokens_per_joule() -> None:
    some = blocks(np.full(6, 500.0))
    assert bootstrap.attainment_interval(some) == pytest.approx((0.99, 0.99))
    assert bootstrap.tokens_per_joule_interval(some) == pytest.approx((2.0, 2.0))
