import json
import math
from pathlib import Path

import numpy as np
import pytest

from throttllem_env.traces import Trace, TraceError, describe, generate, load_trace, plot_trace


def test_figures_of_a_small_trace() -> None:
    summary = describe(Trace([0.0, 1.0, 1.5, 5.5], [1, 2, 3, 4], [4, 3, 2, 2], "small", 10.0))
    assert (summary.name, summary.requests, summary.duration_s) == ("small", 4, 10.0)
    assert summary.mean_rate_rps == summary.peak_rate_rps == 0.4
    assert summary.empty_seconds == pytest.approx(0.7)
    gaps = np.array([1.0, 0.5, 4.0])
    assert summary.interarrival_cv == pytest.approx(gaps.std() / gaps.mean())
    assert (summary.prompt.mean, summary.prompt.p50, summary.prompt.max) == (2.5, 2.5, 4)
    assert summary.rank_correlation == pytest.approx(-0.9486833)  # by hand, ties share 1.5
    assert json.loads(json.dumps(summary.to_dict()))["output"]["max"] == 4


def test_figures_that_do_not_exist_are_nan() -> None:
    summary = describe(Trace([0.0], [5], [5]))
    assert math.isnan(summary.mean_rate_rps)
    assert math.isnan(summary.interarrival_cv)
    assert math.isnan(summary.rank_correlation)
    with pytest.raises(TraceError, match="empty trace"):
        describe(Trace([], [], []))


@pytest.mark.parametrize(
    ("short", "cv", "empty", "prompt", "output"),
    [
        ("conv", 1.1, 0.011, (1155, 1020, 4142), (211, 129, 601)),
        ("code", 13, 0.734, (2048, 1469, 7436), (28, 13, 252)),
    ],
)
def test_published_traces_have_their_published_figures(
    shared_traces: Path, short: str, cv: float, empty: float, prompt: tuple[int, ...], output: tuple[int, ...]
) -> None:
    summary = describe(load_trace(shared_traces / f"AzureLLMInferenceTrace_{short}.csv"))
    assert summary.interarrival_cv == pytest.approx(cv, rel=0.02)
    assert summary.empty_seconds == pytest.approx(empty, abs=0.001)
    for found, published in ((summary.prompt, prompt), (summary.output, output)):
        assert (found.mean, found.p50, found.p99) == pytest.approx(published, abs=0.6)


@pytest.mark.parametrize(
    "trace", [generate("azure-code-like", 900.0), Trace([0.0], [1], [1], "single"), generate("poisson", 5.0)]
)
def test_a_plot_is_a_png_of_readable_size(tmp_path: Path, trace: Trace) -> None:
    from matplotlib.image import imread

    plot_trace(trace, tmp_path / "plot.png")
    height, width = imread(tmp_path / "plot.png").shape[:2]
    assert width >= 1000
    assert height >= 600


def test_an_empty_trace_has_no_plot(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="empty trace"):
        plot_trace(Trace([], [], []), tmp_path / "plot.png")
