"""The folder of a training: what it was told, its learning curve, its policies, and where it can go on.

training.json     settings, hyperparameters, command line, versions
curve.csv         the learning curve
validation.csv    every evaluation on held-out requests
model.zip         the policy that was best there; last.zip, the last one
checkpoints/      the policy at every checkpoint
state/            what the training needs to go on
tb/               TensorBoard events
"""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from throttllem_env.training.settings import TrainSettings

DESCRIPTION, CURVE, VALIDATIONS, BEST, LAST = (
    "training.json",
    "curve.csv",
    "validation.csv",
    "model.zip",
    "last.zip",
)
FOLDERS = ("checkpoints", "state", ".state.before", ".state.part", "tb")


class TrainingFolder:
    """Reads and writes such a folder.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        """Name a folder; `open` makes it."""
        self.path = path

    def __truediv__(self, name: str) -> Path:
        """A path in it."""
        return self.path / name

    @property
    def model(self) -> Path:
        """The best policy."""
        return self / BEST

    def open(self, settings: TrainSettings, about: Mapping[str, Any]) -> bool:
        """Make the folder, or find that the same training was begun in it.

        Args:
            settings: What is to be trained.
            about: What else is worth keeping beside it: versions, command line, hyperparameters.

        Returns:
            Whether it was begun.

        Raises:
            ValueError: The folder holds another training; the message names the first difference.
            OSError: It cannot be written.
        """
        document = json.loads(json.dumps({"settings": settings.plain(), **about}, default=str))
        if (self / DESCRIPTION).is_file() and not settings.fresh:
            for part in ("settings", "hyperparameters"):
                self._require_same(part, document.get(part, {}))
            return True
        self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(DESCRIPTION, document)
        return False

    def _require_same(self, part: str, told: dict[str, Any]) -> None:
        before = json.loads((self / DESCRIPTION).read_text(encoding="utf-8")).get(part, {})
        for name, value in told.items():
            if before.get(name) != value:
                raise ValueError(
                    f"out = '{self.path}': holds a training with {name} = {before.get(name)!r}, not "
                    f"{value!r}; take another folder, or --fresh to begin anew"
                )

    def _clear(self) -> None:
        for name in (DESCRIPTION, CURVE, VALIDATIONS, BEST, LAST):
            (self / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(self / name, ignore_errors=True)

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document, by way of a temporary file."""
        draft = self / f".{name}.part"
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
        draft.replace(self / name)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a row to a table; its first row makes the heads.

        Args:
            name: `CURVE` or `VALIDATIONS`.
            row: Cells by head, the same for all rows.
        """
        path = self / name
        begun = path.is_file()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            if not begun:
                writer.writeheader()
            writer.writerow(row)

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a table; none if it was not begun."""
        path = self / name
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def cut(self, name: str, steps: int) -> None:
        """Forget the rows of a table beyond a checkpoint, which are about to be made again."""
        kept: Sequence[dict[str, str]] = [row for row in self.rows(name) if int(row["steps"]) <= steps]
        (self / name).unlink(missing_ok=True)
        for row in kept:
            self.append(name, row)
