"""Run an entry of `results.json` again, and see whether the same comes out, to the last bit."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from throttllem_env.evaluation.compare import Comparison, check, run_one
from throttllem_env.evaluation.results import config_hash, plain, read_results, run_entry
from throttllem_env.evaluation.settings import Settings


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded run beside the same run made now.

    Attributes:
        recorded: The entry of `runs`.
        repeated: The same made now.
        differences: Recorded and repeated values by metric, where they are not equal; with the name
            `config_hash` if what determines the run has changed.
    """

    recorded: dict[str, Any]
    repeated: dict[str, Any]
    differences: dict[str, tuple[Any, Any]]


def replay_entry(path: Path, entry: int) -> Replay:
    """Run one entry again.

    Args:
        path: A `results.json`.
        entry: Number of the run in it, from 0.

    Raises:
        ValueError: The file is no such file, there is no such entry, or its trace cannot be found.
    """
    document = read_results(path)
    runs = document["runs"]
    if not 0 <= entry < len(runs):
        raise ValueError(f"entry = {entry}: {path} has {len(runs)} runs, from 0 on")
    recorded = runs[entry]
    settings = _settings(document["provenance"]["settings"], recorded)
    scenario = check(settings)
    run = run_one(settings, scenario, recorded["agent"], recorded["seed"])
    slo = scenario.latency_slo(settings.slo_scale)
    comparison = Comparison(settings, scenario, slo, (run,), ())
    repeated = plain(run_entry(comparison, run))
    return Replay(recorded, repeated, _differences(recorded, repeated, config_hash(comparison, run)))


def _settings(recorded: dict[str, Any], run: dict[str, Any]) -> Settings:
    """The settings of the comparison that the run was part of, for this agent alone."""
    known = {field.name for field in fields(Settings)} - {"agents", "out", "jobs", "cluster"}
    kept = {name: value for name, value in recorded.items() if name in known}
    return Settings(agents=(run["agent"],), **kept)


def _differences(
    recorded: dict[str, Any], repeated: dict[str, Any], now_hash: str
) -> dict[str, tuple[Any, Any]]:
    found = {}
    if recorded["config_hash"] != now_hash:
        found["config_hash"] = (recorded["config_hash"], now_hash)
    for part in ("metrics", "energy_parts_j"):
        for name, value in recorded[part].items():
            if repeated[part].get(name) != value:
                found[name] = (value, repeated[part].get(name))
    return found
