"""Policies in files: a zip of `policy.json` and `weights.npz`, in which nothing can be executed.

`policy.json` says what the policy expects and how it decides (`kind`), `weights.npz` holds plain arrays.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throttllem_env.controller import ControllerError

FORMAT = 1
DESCRIPTION, WEIGHTS = "policy.json", "weights.npz"

_DATE = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can hold: equal policies make equal files."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """What a file holds.

    Attributes:
        kind: How it decides: a key of `throttllem_env.agents.learned.loading.KINDS`.
        description: What it expects, and where it comes from: plain JSON.
        arrays: Its weights by name.
    """

    kind: str
    description: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def write(self, path: Path) -> None:
        """Write the file, by way of a temporary one, so that nobody reads half of it.

        Args:
            path: Where to; its folder is made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "kind": self.kind, **self.description}, indent=1, sort_keys=True)
        weights = io.BytesIO()
        np.savez(weights, allow_pickle=False, **dict(self.arrays))
        draft = path.with_name(f".{path.name}.part")
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(DESCRIPTION, _DATE), text + "\n", zipfile.ZIP_DEFLATED)
            archive.writestr(zipfile.ZipInfo(WEIGHTS, _DATE), weights.getvalue(), zipfile.ZIP_DEFLATED)
        draft.replace(path)


def is_policy_file(path: Path) -> bool:
    """Whether a zip is one of ours, rather than one that Stable-Baselines3 wrote.

    Args:
        path: An existing file.

    Raises:
        ControllerError: It is no zip at all.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return DESCRIPTION in archive.namelist()
    except zipfile.BadZipFile:
        raise ControllerError(f"agent = {str(path)!r}: not a policy: the file is no zip") from None


def read_policy(path: Path) -> PolicyFile:
    """Read a policy; nothing in the file is executed.

    Args:
        path: The file.

    Raises:
        ControllerError: It is not one of ours, or is damaged.
        OSError: It cannot be read.
    """
    if not is_policy_file(path):
        raise ControllerError(f"agent = {str(path)!r}: holds no {DESCRIPTION}: not a policy of this package")
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(archive.read(DESCRIPTION))
            with np.load(io.BytesIO(archive.read(WEIGHTS)), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        found, kind = description.pop("format"), description.pop("kind")
    except (zipfile.BadZipFile, KeyError, ValueError, AttributeError) as error:
        raise ControllerError(f"agent = {str(path)!r}: damaged: {error}") from None
    if found != FORMAT:
        raise ControllerError(f"agent = {str(path)!r}: format = {found!r}: this version reads {FORMAT}")
    return PolicyFile(kind, description, arrays)
