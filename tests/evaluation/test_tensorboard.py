"""TensorBoard reads back what was written, and nothing of the run before."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.plots.tradeoff import tradeoff_figure
from throttllem_env.evaluation.results import results
from throttllem_env.evaluation.tensorboard import (
    HPARAM_METRICS,
    LAYOUT,
    MOST_ROWS,
    SERIES,
    TRADEOFF,
    UNITS,
    run_name,
    write_tensorboard,
)
from throttllem_env.serving.timeline import Timeline
from throttllem_env.training.events import CURVE_TAGS, VALIDATION_TAGS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, comparison: Comparison) -> Path:
    path = tmp_path_factory.mktemp("out") / "tb"
    write_tensorboard(comparison, path, tradeoff_figure(results(comparison, [])))
    return path


def read(path: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def test_every_run_has_a_folder(folder: Path, comparison: Comparison) -> None:
    runs = {path.parent.relative_to(folder).as_posix() for path in folder.rglob("events.*")}
    assert runs == {"comparison"} | {f"{run_name(run.agent)}/seed-{run.seed}" for run in comparison.runs}


def test_time_series_are_those_of_the_run(folder: Path, comparison: Comparison) -> None:
    run = comparison.of("throttllem")[1]
    events = read(folder / "throttllem" / "seed-1")
    line = run.result.timeline
    for tag, column in SERIES.items():
        scalars = events.Scalars(tag)
        assert [s.step for s in scalars] == [int(t) for t in line.time_s]
        expected = UNITS.get(tag, 1.0) * line.column(column)
        np.testing.assert_allclose([s.value for s in scalars], expected, rtol=1e-6)
        assert scalars[-1].wall_time == pytest.approx(line.time_s[-1])


def test_what_is_no_number_is_left_out_and_nothing_is_said_of_it(
    tmp_path: Path, comparison: Comparison, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing completed there are no latencies."""
    run = comparison.runs[0]
    metrics = run.result.metrics | {"e2e_p99_s": float("nan"), "tbt_mean_s": float("inf")}
    nothing = replace(run, result=replace(run.result, metrics=metrics))
    write_tensorboard(replace(comparison, runs=(nothing,)), tmp_path)
    events = read(tmp_path / run_name(run.agent) / f"seed-{run.seed}")
    written = {tag.removeprefix("hparams/") for tag in events.Tags()["scalars"] if tag.startswith("hparams/")}
    assert written == set(HPARAM_METRICS) - {"e2e_p99_s", "tbt_mean_s"}
    assert "NaN" not in caplog.text


def test_a_run_of_many_hours_is_written_in_even_steps_to_its_end(
    tmp_path: Path, comparison: Comparison
) -> None:
    run, seconds = comparison.runs[0], 2 * MOST_ROWS + 1
    ramp = [float(t) for t in range(seconds)]
    line = Timeline(**dict.fromkeys(SERIES.values(), ramp) | {"time_s": ramp})
    write_tensorboard(
        replace(comparison, runs=(replace(run, result=replace(run.result, timeline=line)),)), tmp_path
    )
    scalars = read(tmp_path / run_name(run.agent) / f"seed-{run.seed}").Scalars("load/queue")
    assert [s.step for s in scalars] == [*range(0, seconds, 3), seconds - 1]
    assert [s.value for s in scalars] == [s.step for s in scalars]


def test_violations_stand_over_the_energy_that_was_spent(tmp_path: Path, comparison: Comparison) -> None:
    run = comparison.runs[0]
    seconds = 3000
    violations = [0.0] * 1234 + [2.0] * 766 + [5.0] * 1000
    line = Timeline(
        **{column: [1.0] * seconds for column in SERIES.values()}
        | {"time_s": [float(t) for t in range(seconds)], "energy_j": [700.0 * t for t in range(seconds)]}
        | {"violations": violations}
    )
    late = replace(run, result=replace(run.result, timeline=line))
    write_tensorboard(replace(comparison, runs=(late,)), tmp_path)
    scalars = read(tmp_path / run_name(run.agent) / f"seed-{run.seed}").Scalars(TRADEOFF)
    assert (scalars[0].step, scalars[0].value) == (0, 0.0)
    assert (scalars[-1].step, scalars[-1].value) == (700 * 2999, 5.0)
    # Both sides of a rise, so that it is drawn as a step.
    assert {(700 * 1233, 0.0), (700 * 1234, 2.0), (700 * 1999, 2.0), (700 * 2000, 5.0)} <= {
        (s.step, s.value) for s in scalars
    }
    assert len(scalars) < 120


def test_each_chart_shows_the_series_that_it_names_and_no_other() -> None:
    # TensorBoard takes a chart's tags for regular expressions that match anywhere.
    known = {*SERIES, TRADEOFF, *CURVE_TAGS, *VALIDATION_TAGS}
    charts = [tags for category in LAYOUT.values() for _, tags in category.values()]
    for (wanted,) in charts:
        assert [tag for tag in known if re.search(wanted, tag)] == [wanted]


def test_hparams_table_has_a_row_per_run(folder: Path, comparison: Comparison) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    for run in comparison.runs:
        events = read(folder / run_name(run.agent) / f"seed-{run.seed}")
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
        assert start.hparams["agent"].string_value == run.agent
        assert start.hparams["seed"].number_value == run.seed
        assert start.hparams["length_predictor"].string_value == "learned"
        for name in HPARAM_METRICS:
            (scalar,) = events.Scalars(f"hparams/{name}")
            assert scalar.value == pytest.approx(float(run.result.metrics[name]), rel=1e-6)


def test_plot_and_layout_are_there(folder: Path) -> None:
    from tensorboard.plugins.custom_scalar import layout_pb2

    events = read(folder / "comparison")
    (image,) = events.Images("energy_against_violations")
    assert image.width > 500
    assert len(image.encoded_image_string) > 10_000
    (tensor,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(tensor.tensor_proto.string_val[0])
    assert layout.category[0].title == "Evaluation: energy against SLO violations"
    tags = {tag for c in layout.category for chart in c.chart for tag in chart.multiline.tag}
    # Trainings write the same layout, and their own series.
    of_trainings = {*CURVE_TAGS, *VALIDATION_TAGS}
    assert tags <= {*SERIES, TRADEOFF, *of_trainings}
    assert TRADEOFF in tags
    assert tags & set(SERIES)
    assert tags & of_trainings


def test_a_second_comparison_replaces_the_first(tmp_path: Path, comparison: Comparison) -> None:
    write_tensorboard(comparison, tmp_path)
    kept = tmp_path / "throttllem" / "notes.txt"
    kept.write_text("mine", encoding="utf-8")
    write_tensorboard(replace(comparison, runs=comparison.runs[:1]), tmp_path)
    files = {path.relative_to(tmp_path).as_posix().rpartition("/")[0] for path in tmp_path.rglob("events.*")}
    assert files == {"comparison", "max-frequency/seed-0"}
    assert len(list((tmp_path / "max-frequency" / "seed-0").iterdir())) == 1
    assert kept.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "static-frequency_mhz=990").exists()


@pytest.mark.parametrize("agent", ["../../etc", "a/b:c=d", "static-frequency:mhz=990,size=2"])
def test_names_stay_within_the_folder(agent: str) -> None:
    assert "/" not in run_name(agent)
    assert ":" not in run_name(agent)
