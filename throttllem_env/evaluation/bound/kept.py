"""Bounds of one replica of a case as a file, so that they are found once and made better later."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from throttllem_env.evaluation.bound.schedule import Schedule
from throttllem_env.evaluation.sweeps.identity import fingerprint, scenario_identity, source_digest
from throttllem_env.evaluation.sweeps.sweep import Shelf
from throttllem_env.scenario import Scenario
from throttllem_env.slo import Slo

ROOMS = ("traces", "hardware", "prediction", "gpu", "serving")
"""What bounds depend on: the node and its load, but no agent."""

OWN = ("metrics.py", *(f"bound/{name}.py" for name in ("demand", "lower", "prices", "schedule")))
"""The same of `evaluation`. A better search makes nothing wrong that was found, so it is not among them."""


@dataclass(frozen=True, slots=True)
class Found:
    """Both bounds for one replica of the trace.

    Attributes:
        lower_j: No run that attains the SLOs uses less.
        in_time: Requests that must be in time for that.
        schedule: The best that the search found.
        energy_j: Its energy; infinite if it does not attain the SLOs.
        tried: How many schedules were run.
        seconds: For how long it was searched, seconds of processor time.
    """

    lower_j: float
    in_time: int
    schedule: Schedule
    energy_j: float
    tried: int
    seconds: float


def shelf(out: Path) -> Shelf[Found]:
    """Where bounds of a comparison are kept.

    Args:
        out: The comparison's folder.
    """
    return Shelf(out / "bounds", ".json", dump, load)


def key(
    scenario: Scenario, slo: Slo, trace_digest: str, horizon_s: float, seed: int, length_predictor: str
) -> str:
    """What determines the bounds of a replica, as a hash.

    Args:
        scenario: What is served on what.
        slo: The targets.
        trace_digest: SHA-256 of the requests.
        horizon_s: Energy counts until then, seconds.
        seed: Seeds switch and warm-up times.
        length_predictor: Projected admission goes by it.
    """
    targets = [slo.e2e_s, slo.tbt_s, slo.attainment]
    determines = {"trace": trace_digest, "slo": targets, "horizon_s": horizon_s, "seed": seed}
    determines |= {"length_predictor": length_predictor}
    return fingerprint(scenario_identity(scenario) | determines, source_digest(ROOMS, OWN))


def dump(found: Found) -> bytes:
    """Bounds as the bytes of a file."""
    clock, size = found.schedule.clock.tolist(), found.schedule.size.tolist()
    energy_j = found.energy_j if np.isfinite(found.energy_j) else None
    plain = {"lower_j": found.lower_j, "in_time": found.in_time, "energy_j": energy_j, "tried": found.tried}
    return json.dumps(plain | {"seconds": found.seconds, "clock": clock, "size": size}).encode()


def load(data: bytes) -> Found:
    """The bounds that `dump` turned into bytes.

    Raises:
        ValueError: They are none.
        KeyError: Something is missing.
    """
    plain: dict[str, Any] = json.loads(data)
    schedule = Schedule(np.array(plain["clock"], np.int64), np.array(plain["size"], np.int64))
    energy_j = float("inf") if plain["energy_j"] is None else plain["energy_j"]
    return Found(plain["lower_j"], plain["in_time"], schedule, energy_j, plain["tried"], plain["seconds"])
