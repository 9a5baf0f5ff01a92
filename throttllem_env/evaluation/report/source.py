"""What a report is made from: `results.json` and the files of its runs."""

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from throttllem_env.evaluation.results import METRICS, plain, read_results
from throttllem_env.evaluation.sweeps.run_file import Run, load_run
from throttllem_env.slo import Slo

Identity = tuple[str, int, str]


@dataclass(frozen=True)
class Source:
    """A comparison on disk.

    Attributes:
        folder: Where it lies.
        document: The content of `results.json`.
        runs: Those of its runs whose files are there, in the order of `results.json`.
        among: Agents of several comparisons that have their colours in common; None for this one's alone.
    """

    folder: Path
    document: dict[str, Any]
    runs: tuple[Run, ...]
    among: tuple[str, ...] | None = None

    @cached_property
    def agents(self) -> tuple[str, ...]:
        """Agents with at least one run, in the order in which they were named."""
        return self.among or tuple(entry["agent"] for entry in self.document["summary"])

    @cached_property
    def slo(self) -> Slo:
        """The targets, scaled."""
        return Slo(**self.document["provenance"]["slo"])

    @property
    def lost(self) -> int:
        """How many runs have no file."""
        return len(self.document["runs"]) - len(self.runs)

    def of(self, agent: str) -> list[Run]:
        """The runs of an agent, by seed."""
        return [run for run in self.runs if run.agent == agent]

    def entries(self, agent: str) -> list[dict[str, Any]]:
        """The agent's entries in `results.json`."""
        return [entry for entry in self.document["runs"] if entry["agent"] == agent]


def read_source(folder: Path) -> Source:
    """Read a folder that `throttllem compare` wrote.

    Args:
        folder: Has `results.json`, and `runs/` unless that was deleted.

    Raises:
        ValueError: There is no such file in the folder, or one without a run.
    """
    document = read_document(folder)
    files = _files(folder / "runs")
    found = (_run(entry, files) for entry in document["runs"])
    return Source(folder, document, tuple(run for run in found if run is not None))


def read_document(folder: Path) -> dict[str, Any]:
    """The content of a folder's `results.json`.

    Args:
        folder: What `throttllem compare` wrote.

    Raises:
        ValueError: There is no such file in the folder, or one without a run.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no results.json in it; `throttllem compare --out DIR` writes one")
    document = read_results(path)
    if not document["summary"]:
        raise ValueError(f"{path}: no run came to its end; there is nothing to report")
    return document


def _files(folder: Path) -> dict[Identity, list[Path]]:
    """Files of runs by what their headers say; an earlier comparison may have left others."""
    found: dict[Identity, list[Path]] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
            identity = header["agent"], header["seed"], header["trace_digest"]
        except (zipfile.BadZipFile, EOFError, ValueError, KeyError):
            continue
        found.setdefault(identity, []).append(path)
    return found


def _run(entry: dict[str, Any], files: dict[Identity, list[Path]]) -> Run | None:
    """The run behind an entry: the one whose metrics are those of the entry, to the last bit."""
    identity = entry["agent"], entry["seed"], entry["trace_digest"]
    for path in files.get(identity, []):
        run = load_run(path.read_bytes())
        if plain({name: run.result.metrics[name] for name in METRICS}) == entry["metrics"]:
            return run
    return None
