"""TensorBoard events of a training, in the layout of a comparison's, so that one TensorBoard shows both."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.tensorboard import LAYOUT, run_name
from throttllem_env.training.validation import Validation

CURVE_TAGS = {
    "training/power_w": "power_w",
    "training/late_percent": "late_share",
    "training/reward_per_s": "reward_per_s",
    "training/price": "price",
    "training/load": "load",
}
"""Tags of the learning curve, and its columns; the step is the number of steps done."""

VALIDATION_TAGS = {
    "validation/energy_j": "energy_j",
    "validation/saved_percent": "saving",
    "validation/late_percent": "late_share",
    "validation/slo_attainment": "slo_attainment",
    "validation/score": "score",
}

UNITS = {"training/late_percent": 100.0, "validation/saved_percent": 100.0, "validation/late_percent": 100.0}
"""What columns are multiplied by, where it is not 1: TensorBoard's axes round 0.9995 to 1."""


class Events:
    """Writes the events of one training."""

    def __init__(self, folder: Path, algo: str, seed: int, *, from_steps: int) -> None:
        """Open a file of events.

        Args:
            folder: `tb` in the training's folder.
            algo: The learner.
            seed: Seed of the training.
            from_steps: Where it goes on; what was written beyond is hidden.
        """
        from tensorboardX import SummaryWriter

        path = folder / run_name(f"train-{algo}") / f"seed-{seed}"
        self._writer: SummaryWriter = SummaryWriter(
            str(path), max_queue=10_000, purge_step=from_steps + 1 if from_steps else None
        )
        self._writer.add_custom_scalars(LAYOUT)

    def curve(self, row: Mapping[str, Any]) -> None:
        """A row of the learning curve."""
        self._scalars(CURVE_TAGS, row, row["steps"])

    def learner(self, values: Mapping[str, Any], steps: int) -> None:
        """What the learner says of itself: losses and the like."""
        for tag, value in values.items():
            # Some are no number until there is something to say.
            if isinstance(value, int | float) and math.isfinite(value):
                self._writer.add_scalar(f"learner/{tag.replace('/', '_')}", value, steps)

    def validation(self, found: Validation) -> None:
        """An evaluation on held-out requests."""
        row = {**found.plain(), "late_share": 1 - found.slo_attainment}
        self._scalars(VALIDATION_TAGS, row, found.steps)
        self._writer.flush()

    def _scalars(self, tags: Mapping[str, str], row: Mapping[str, Any], steps: int) -> None:
        for tag, column in tags.items():
            if row.get(column, "") != "":
                self._writer.add_scalar(tag, UNITS.get(tag, 1.0) * float(row[column]), steps)

    def hparams(self, values: Mapping[str, Any], best: Validation) -> None:
        """The training's row of the HParams table."""
        from tensorboardX.summary import hparams

        metrics = {
            f"hparams/{name}": float(getattr(best, name)) for name in ("energy_j", "slo_attainment", "saving")
        }
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        for summary in hparams(plain, metrics):
            self._writer.file_writer.add_summary(summary)
        for tag, value in metrics.items():
            self._writer.add_scalar(tag, value, 0)

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
