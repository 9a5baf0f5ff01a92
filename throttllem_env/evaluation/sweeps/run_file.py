"""A run, and the same as the bytes of one file: arrays and a header of plain values, no pickle."""

import io
import json
import zipfile
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from throttllem_env.controller.watchdog import WatchdogEvent
from throttllem_env.evaluation.runner import RunResult
from throttllem_env.serving import EnergyParts, RequestRecords, RunRecords
from throttllem_env.serving.timeline import COLUMNS, Timeline
from throttllem_env.traces import OverLengthCounts

ARRAYS = tuple(f.name for f in fields(RequestRecords))
DETERMINED = ("agent", "seed", "trace_digest", "past_digest", "speed")


@dataclass(frozen=True, slots=True)
class Run:
    """One agent on one replica of the trace.

    Attributes:
        agent: The controller as it was named.
        seed: Seed of the replica and of everything drawn in the run.
        trace_digest: SHA-256 of the requests served.
        past_digest: SHA-256 of the requests that length predictors learned from.
        over_length: Requests longer than the model takes, in the whole trace before any cut.
        speed: Factor by which the trace's time was compressed.
        result: What happened.
    """

    agent: str
    seed: int
    trace_digest: str
    past_digest: str
    over_length: OverLengthCounts
    speed: float
    result: RunResult


def dump_run(run: Run) -> bytes:
    """A run as the bytes of an .npz file.

    Args:
        run: Anything that `run_one` returns.
    """
    result, records = run.result, run.result.records
    header = {name: getattr(run, name) for name in DETERMINED} | {
        "over_length": asdict(run.over_length),
        "metrics": result.metrics,
        "control": result.control,
        "iteration_time": result.iteration_time,
        "watchdog": [asdict(event) for event in result.watchdog],
        "energy": asdict(records.energy),
        "gpu_seconds": records.gpu_seconds,
        "tbt_total_s": records.tbt_total_s,
    }
    arrays = {
        "header": np.array(json.dumps(header, default=_scalar)),
        "tbt_gap_s": records.tbt_gap_s,
        "tbt_tokens": records.tbt_tokens,
        **{f"request_{name}": getattr(records.requests, name) for name in ARRAYS},
        **{f"timeline_{name}": result.timeline.column(name) for name in COLUMNS},
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def load_run(data: bytes) -> Run:
    """The run that `dump_run` turned into bytes, to the last bit.

    Args:
        data: Content of a file.

    Raises:
        ValueError: It is no such file, or a part of one.
        KeyError: It lacks something.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"no file of a run: {error}") from error
    header = json.loads(str(arrays["header"]))
    result = RunResult(
        metrics=header["metrics"],
        timeline=Timeline(**{name: arrays[f"timeline_{name}"].tolist() for name in COLUMNS}),
        records=_records(arrays, header),
        control=header["control"],
        iteration_time=header["iteration_time"],
        watchdog=tuple(WatchdogEvent(**event) for event in header["watchdog"]),
    )
    over_length = OverLengthCounts(**header["over_length"])
    return Run(**{name: header[name] for name in DETERMINED}, over_length=over_length, result=result)


def _records(arrays: dict[str, Any], header: dict[str, Any]) -> RunRecords:
    return RunRecords(
        requests=RequestRecords(**{name: arrays[f"request_{name}"] for name in ARRAYS}),
        tbt_gap_s=arrays["tbt_gap_s"],
        tbt_tokens=arrays["tbt_tokens"],
        tbt_total_s=header["tbt_total_s"],
        energy=EnergyParts(**header["energy"]),
        gpu_seconds=header["gpu_seconds"],
    )


def _scalar(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item()
