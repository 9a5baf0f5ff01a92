"""Plots are drawn, hold something, and stay legible with many agents."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from throttllem_env.envs import timeline_figure
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.output import prepare_folder, write_outputs
from throttllem_env.evaluation.plots import write_plots
from throttllem_env.evaluation.plots.latency import e2e_exceedance, tbt_exceedance
from throttllem_env.evaluation.plots.style import PALETTE, colours
from throttllem_env.evaluation.plots.timeline import run_figure
from throttllem_env.evaluation.plots.tradeoff import spread, tradeoff_figure
from throttllem_env.evaluation.results import results


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory, comparison: Comparison) -> list[Path]:
    return write_plots(comparison, results(comparison, []), tmp_path_factory.mktemp("plots"))


def test_the_promised_plots_are_written(plots: list[Path]) -> None:
    assert [path.name for path in plots] == [
        "energy-against-attainment.png",
        "latencies.png",
        "timeline-max-frequency.png",
        "timeline-static-frequency_mhz=990.png",
        "timeline-throttllem.png",
    ]


def test_plots_are_not_blank(plots: list[Path]) -> None:
    from matplotlib.image import imread

    for path in plots:
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 500
        inked = (pixels[..., :3] < 0.9).any(axis=2).mean()
        assert 0.01 < inked < 0.7, path.name


def test_pyplot_is_left_alone(plots: list[Path]) -> None:
    assert plots
    assert "matplotlib.pyplot" not in sys.modules


def test_labels_of_many_agents_do_not_overlap(comparison: Comparison) -> None:
    document = results(comparison, [])
    for i in range(5):
        twin = copy.deepcopy(document["summary"][-1])
        twin["agent"] = f"agent-with-a-long-name-{i}"
        document["summary"].append(twin)
    figure = tradeoff_figure(document)
    figure.canvas.draw()
    labels = [text for text in figure.axes[0].texts if "\n" in text.get_text()]
    # Of the text alone: an annotation's own extent takes its line in.
    boxes = [Text.get_window_extent(label) for label in labels]
    assert len(boxes) == 8
    for i, box in enumerate(boxes):
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_the_target_and_the_saving_are_in_the_picture(comparison: Comparison) -> None:
    texts = " ".join(text.get_text() for text in tradeoff_figure(results(comparison, [])).axes[0].texts)
    assert "SLO: 99 % within 25 s" in texts
    assert "−" in texts


def test_a_single_agent_can_be_drawn(comparison: Comparison, tmp_path: Path) -> None:
    alone = replace(comparison, runs=comparison.runs[:1])
    assert len(write_plots(alone, results(alone, []), tmp_path)) == 3


def test_exceedance_agrees_with_attainment(comparison: Comparison) -> None:
    for run in comparison.runs:
        e2e_s, share = e2e_exceedance([run])
        slower = share[np.searchsorted(e2e_s, comparison.slo.e2e_s, side="right") - 1]
        assert 1 - slower == pytest.approx(run.result.metrics["slo_attainment"])
        assert (np.diff(e2e_s) >= 0).all()


def test_requests_that_never_complete_are_slower_than_all(comparison: Comparison) -> None:
    run = comparison.runs[0]
    requests = run.result.records.requests
    finish_s = requests.finish_s.copy()
    finish_s[: len(finish_s) // 2] = np.nan
    records = replace(run.result.records, requests=replace(requests, finish_s=finish_s))
    _, share = e2e_exceedance([replace(run, result=replace(run.result, records=records))])
    assert share[-1] == pytest.approx(0.5, abs=0.01)


def test_tbt_exceedance_ends_at_zero(comparison: Comparison) -> None:
    gap_ms, share = tbt_exceedance(comparison.of("throttllem"))
    assert share[-1] == pytest.approx(0.0)
    assert (np.diff(share) <= 0).all()
    assert gap_ms.max() == pytest.approx(
        1e3 * max(run.result.records.tbt_gap_s.max() for run in comparison.of("throttllem"))
    )


def test_colours_differ_and_the_first_is_black() -> None:
    chosen = colours([f"a{i}" for i in range(8)])
    assert len(set(chosen.values())) == 8
    assert chosen["a0"] == PALETTE[0]


def test_spread_keeps_order_and_distance() -> None:
    placed = spread([0.95, 0.95, 0.95], gap=0.1)
    assert placed == pytest.approx([0.77, 0.87, 0.97])


def test_outputs_of_a_smaller_comparison_replace_the_larger(comparison: Comparison, tmp_path: Path) -> None:
    stale = tmp_path / "plots" / "timeline-gone.png"
    stale.parent.mkdir()
    stale.touch()
    small = replace(comparison, runs=comparison.runs[:1])
    paths = write_outputs(small, results(small, []), tmp_path)
    assert all(path.exists() for path in paths)
    assert [path.name for path in paths[:2]] == ["results.json", "results.md"]
    assert not stale.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not a folder that can be written to"):
        prepare_folder(tmp_path / "file" / "out")


def test_a_long_run_gets_a_smooth_clock(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_figure, "LONG_S", 10.0)
    monkeypatch.setattr(timeline_figure, "MEAN_S", 1000.0)
    run = comparison.of("throttllem")[0]
    clock = run_figure(comparison, run).axes[0].lines[1].get_ydata()
    # A window longer than the run gives its mean, everywhere.
    np.testing.assert_allclose(np.asarray(clock), run.result.metrics["frequency_mean_mhz"], rtol=0.02)
