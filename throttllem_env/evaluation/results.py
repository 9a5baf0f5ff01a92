"""`results.json`: every run, a summary per agent, and what made them."""

import dataclasses
import hashlib
import json
import math
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from throttllem_env import __version__
from throttllem_env.evaluation import bootstrap
from throttllem_env.evaluation.bootstrap import Blocks, run_blocks
from throttllem_env.evaluation.compare import Comparison
from throttllem_env.evaluation.sweeps.run_file import Run
from throttllem_env.hardware import load_profile
from throttllem_env.serving.workload import is_synthetic

FORMAT = 1
METRICS = (
    "energy_j",
    "energy_node_j",
    "tokens_per_joule",
    "energy_per_request_j",
    "requests",
    "completed",
    "rejected",
    "preemptions",
    "e2e_p50_s",
    "e2e_p99_s",
    "ttft_p99_s",
    "tbt_mean_s",
    "tbt_p99_s",
    "slo_attainment",
    "slo_attained",
    "slo_violations",
    "frequency_mean_mhz",
    "frequency_switches",
    "size_changes",
    "gpu_seconds",
    "duration_s",
)
"""Metrics of a run, in this order."""

RECORDED_PACKAGES = ("numpy", "pandas", "pydantic", "joblib")


def results(comparison: Comparison, command: list[str] | None = None) -> dict[str, Any]:
    """Everything that a comparison found, as plain values that are valid JSON.

    Args:
        comparison: The runs.
        command: The command line; by default that of this process.

    Returns:
        `format`, `provenance`, `runs`, `summary` and `failures`. What is not a number is None.
    """
    document = {
        "format": FORMAT,
        "provenance": provenance(comparison, sys.argv if command is None else command),
        "runs": [run_entry(comparison, run) for run in comparison.runs],
        "summary": summarize(comparison),
        "failures": [dataclasses.asdict(failure) for failure in comparison.failures],
    }
    cleaned: dict[str, Any] = plain(document)
    return cleaned


def read_results(path: Path) -> dict[str, Any]:
    """The content of a `results.json`.

    Args:
        path: The file.

    Raises:
        ValueError: It is none, or of another format.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{path}: no results.json of format {FORMAT}")
    return document


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write what `results` returned.

    Args:
        document: Plain values.
        path: The file.
    """
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Turn values into what JSON knows; nan and infinities, which it does not know, into None.

    Args:
        value: Mappings, sequences, NumPy or Python scalars, paths.

    Example:
        >>> plain({"a": (np.float64("nan"), np.int64(3), True)})
        {'a': [None, 3, True]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def run_entry(comparison: Comparison, run: Run) -> dict[str, Any]:
    """One entry of `runs`.

    Args:
        comparison: Gives what is common to all runs.
        run: The run.
    """
    settings, scenario = comparison.settings, comparison.scenario
    return {
        "agent": run.agent,
        "scenario": scenario.name,
        "scenario_version": scenario.version,
        "trace": settings.trace,
        "load": settings.load,
        "slo_scale": settings.slo_scale,
        "length_predictor": settings.length_predictor,
        "control": run.result.control,
        "seed": run.seed,
        "backend": settings.backend,
        "config_hash": config_hash(comparison, run),
        "metrics": {name: run.result.metrics[name] for name in METRICS},
        "iteration_time": run.result.iteration_time,
        "watchdog": [dataclasses.asdict(event) for event in run.result.watchdog],
        "energy_parts_j": dataclasses.asdict(run.result.records.energy),
        "trace_digest": run.trace_digest,
        "trace_speed": run.speed,
        "over_length": dataclasses.asdict(run.over_length),
    }


def config_hash(comparison: Comparison, run: Run) -> str:
    """SHA-256 over all that determines a run; equal hashes mean equal results.

    Requests enter by content, so that it does not matter where a trace lies.

    Args:
        comparison: Gives what is common to all runs.
        run: The run.
    """
    settings, scenario = comparison.settings, comparison.scenario
    determines = {
        "version": __version__,
        "scenario": scenario.model_dump(mode="json"),
        "profile": dataclasses.asdict(load_profile(scenario.model, scenario.gpu)),
        "trace": run.trace_digest,
        "past": run.past_digest,
        "agent": run.agent,
        "iteration_time": run.result.iteration_time,
        "load": settings.load,
        "slo": dataclasses.asdict(comparison.slo),
        "length_predictor": settings.length_predictor,
        "control": run.result.control,
        "backend": settings.backend,
        "seed": run.seed,
    }
    canonical = json.dumps(plain(determines), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def provenance(comparison: Comparison, command: list[str]) -> dict[str, Any]:
    """Where the results come from: command line, settings, targets, versions."""
    settings = dataclasses.asdict(comparison.settings)
    return {
        "command": shlex.join([Path(command[0]).name, *command[1:]]) if command else "",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": settings,
        "slo": dataclasses.asdict(comparison.slo),
        "scenario": comparison.scenario.model_dump(mode="json"),
        "interval": f"{bootstrap.CONFIDENCE:.0%}, paired bootstrap over (seed, {bootstrap.BLOCK_S:g} s block)"
        f", {bootstrap.RESAMPLES} draws",
        "versions": {"throttllem-env": __version__, "python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed some other way
            found[name] = "unknown"
    return found


def summarize(comparison: Comparison) -> list[dict[str, Any]]:
    """One entry per agent: means over its runs, 95 % intervals, and the saving against the first agent.

    Args:
        comparison: The runs.

    Returns:
        Entries in the order of the agents; `saving` is None where the first agent has no run to
        compare with. Intervals are None where there are too few blocks.
    """
    blocks = {agent: agent_blocks(comparison, agent) for agent in comparison.agents}
    first = comparison.settings.agents[0]
    return [_summary(comparison, agent, blocks[agent], first, blocks.get(first)) for agent in blocks]


def agent_blocks(comparison: Comparison, agent: str) -> Blocks:
    """All blocks of an agent's runs."""
    replica = not is_synthetic(comparison.settings.trace)
    return Blocks.concatenate(
        [run_blocks(run.result, comparison.slo, run.seed, replica=replica) for run in comparison.of(agent)]
    )


def _summary(
    comparison: Comparison, agent: str, blocks: Blocks, first: str, first_blocks: Blocks | None
) -> dict[str, Any]:
    runs = comparison.of(agent)
    attained = [bool(run.result.metrics["slo_attained"]) for run in runs]
    return {
        "agent": agent,
        "runs": len(runs),
        "blocks": len(blocks),
        "length_predictor": comparison.settings.length_predictor,
        "slo_attained": all(attained),
        "slo_attained_runs": sum(attained),
        "means": {name: _mean(runs, name) for name in METRICS if name != "slo_attained"},
        "intervals": {
            "energy_j": bootstrap.energy_interval(blocks, len(runs)),
            "tokens_per_joule": bootstrap.tokens_per_joule_interval(blocks),
            "slo_attainment": bootstrap.attainment_interval(blocks),
        },
        "saving": _saving(agent, blocks, first, first_blocks),
    }


def _mean(runs: list[Run], name: str) -> float:
    """Mean over the runs that have the metric."""
    values = np.array([run.result.metrics[name] for run in runs], np.float64)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _saving(agent: str, blocks: Blocks, first: str, first_blocks: Blocks | None) -> dict[str, Any] | None:
    if first_blocks is None:
        return None
    if agent == first:
        return {"against": first, "energy": 0.0, "interval": None}
    share, interval = bootstrap.saving(blocks, first_blocks)
    return {"against": first, "energy": share, "interval": interval}
