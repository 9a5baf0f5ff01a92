"""TensorBoard events of a comparison, written without torch.

Under the folder: `<agent>/seed-K` holds a run's time series and its row of the HParams table,
`comparison` holds the plot of energy against violations and the layout of the custom scalars.
"""

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.serving.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tensorboardX import SummaryWriter

SERIES = {
    "control/clock_mhz": "frequency_mhz",
    "control/size": "size",
    "control/gpus": "gpus",
    "energy/megajoules": "energy_j",
    "energy/power_w": "power_w",
    "load/batch": "batch",
    "load/kv_share": "kv_share",
    "load/queue": "queue",
    "slo/violations": "violations",
}
"""Tags of the time series, and the timeline's columns; the step is the second of the run."""

UNITS = {"energy/megajoules": 1e-6}
"""What columns are multiplied by, where it is not 1: TensorBoard's axes would say 2e+5 joules."""

HPARAM_METRICS = (
    "energy_j",
    "tokens_per_joule",
    "slo_attainment",
    "slo_violations",
    "e2e_p99_s",
    "tbt_mean_s",
    "frequency_mean_mhz",
)
"""Metrics in the HParams table; each is a scalar of the run under `hparams/`."""

TRADEOFF = "tradeoff/violations"
"""Tag of the violations so far, with the joules spent so far in the step's place: down and left is better."""

MOST_ROWS = 4000
"""Samples of a run that are written: an hour's are all there, and TensorBoard shows a thousand at a time."""

LAYOUT = {
    "Evaluation: energy against SLO violations": {
        "violations so far, by joules spent": ["Multiline", [TRADEOFF]],
        "megajoules spent, by seconds": ["Multiline", ["energy/megajoules"]],
        "violations so far, by seconds": ["Multiline", ["slo/violations"]],
    },
    "Training, while it learns, by steps done": {
        "power (W)": ["Multiline", ["training/power_w"]],
        "late requests (%)": ["Multiline", ["training/late_percent"]],
        "reward per second": ["Multiline", ["training/reward_per_s"]],
    },
    "Training, its policies on held-out requests, by steps done": {
        "energy saved (%)": ["Multiline", ["validation/saved_percent"]],
        "late requests (%)": ["Multiline", ["validation/late_percent"]],
        "score: the best policy is kept": ["Multiline", ["validation/score"]],
    },
    "Control, by seconds": {
        "clock (MHz)": ["Multiline", ["control/clock_mhz"]],
        "GPUs allocated": ["Multiline", ["control/gpus"]],
    },
}
"""Custom scalars: what is traded against each other side by side, all runs in each. Trainings write the same
layout and the middle two groups (`throttllem_env.training.events`)."""

_EVENT_FILES = "events.out.tfevents.*"


def write_tensorboard(comparison: Comparison, folder: Path, plot: "Figure | None" = None) -> None:
    """Write all runs.

    Events of an earlier comparison in the same folder are removed, since TensorBoard would mix them
    with the new ones; other files stay.

    Args:
        comparison: The runs.
        folder: Where to write.
        plot: Shown as an image: energy against violations.
    """
    clear_events(folder)
    for run in comparison.runs:
        with _writer(folder / run_name(run.agent) / f"seed-{run.seed}") as writer:
            _write_series(writer, run.result.timeline)
            _write_hparams(writer, comparison, run)
    with _writer(folder / "comparison") as writer:
        writer.add_custom_scalars(LAYOUT)
        if plot is not None:
            writer.add_image("energy_against_violations", _pixels(plot), dataformats="HWC")


def clear_events(folder: Path) -> None:
    """Remove event files below a folder, and the folders that are then empty.

    Args:
        folder: Where events may lie; need not exist.
    """
    for path in sorted(folder.rglob(_EVENT_FILES)):
        path.unlink()
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def run_name(agent: str) -> str:
    """A folder's name for an agent.

    Example:
        >>> run_name("static-frequency:mhz=990")
        'static-frequency_mhz=990'
    """
    return re.sub(r"[^\w.=,+-]", "_", agent)


def _writer(folder: Path) -> "SummaryWriter":
    from tensorboardX import SummaryWriter

    # A long queue: by default every tenth event waits for the disk.
    return SummaryWriter(str(folder), max_queue=10_000)


def _write_series(writer: "SummaryWriter", timeline: Timeline) -> None:
    """Time series; the clock of the events is that of the run, so that "relative" shows its time."""
    from tensorboardX.proto.summary_pb2 import Summary

    columns = {
        tag: [UNITS.get(tag, 1.0) * value for value in getattr(timeline, column)]
        for tag, column in SERIES.items()
    }
    for row in _even_rows(len(timeline.time_s)):
        # One event for all tags: an event each would take an hour's trace half a minute.
        values = [Summary.Value(tag=tag, simple_value=column[row]) for tag, column in columns.items()]
        time_s = timeline.time_s[row]
        writer.file_writer.add_summary(Summary(value=values), int(time_s), time_s)
    for row in _telling_rows(timeline):
        value = Summary.Value(tag=TRADEOFF, simple_value=timeline.violations[row])
        writer.file_writer.add_summary(
            Summary(value=[value]), int(timeline.energy_j[row]), timeline.time_s[row]
        )


def _even_rows(samples: int) -> list[int]:
    """All rows of a run, or every so many of a long one, and the last."""
    return sorted({*range(0, samples, -(-samples // MOST_ROWS) or 1), *range(samples)[-1:]})


def _telling_rows(timeline: Timeline) -> list[int]:
    """Rows that draw the violations: both sides of every rise, the ends, and a hundred or so between."""
    import numpy as np

    rises = np.flatnonzero(np.diff(timeline.violations))
    last = len(timeline.time_s) - 1
    regular = np.arange(0, last + 1, max(last // 100, 1))
    return [int(row) for row in np.unique(np.concatenate([regular, rises, rises + 1, [last]])) if row >= 0]


def _write_hparams(writer: "SummaryWriter", comparison: Comparison, run: Run) -> None:
    """The run's row of the HParams table.

    `add_hparams` would open a further folder per run, named after the wall clock.
    """
    from tensorboardX.summary import hparams

    # Where nothing completed there are no latencies, and TensorBoard has no word for that.
    values = {f"hparams/{name}": float(run.result.metrics[name]) for name in HPARAM_METRICS}
    metrics = {tag: value for tag, value in values.items() if math.isfinite(value)}
    for summary in hparams(_hparams(comparison, run), metrics):
        writer.file_writer.add_summary(summary)
    for tag, value in metrics.items():
        writer.add_scalar(tag, value, 0)


def _hparams(comparison: Comparison, run: Run) -> dict[str, Any]:
    settings = comparison.settings
    return {
        "agent": run.agent,
        "seed": run.seed,
        "scenario": comparison.scenario.name,
        "trace": Path(settings.trace).name,
        "load": settings.load,
        "slo_scale": settings.slo_scale,
        "length_predictor": settings.length_predictor,
        "control": run.result.control,
        "split": settings.split,
        "backend": settings.backend,
    }


def _pixels(figure: "Figure") -> Any:
    """A figure as uint8[height, width, 3]."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
