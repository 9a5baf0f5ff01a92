"""Measuring how long a change of clocks takes: the one part that changes something on a GPU."""

from typing import Any

from throttllem_env.gpu import ActuatorError, make_actuator
from throttllem_env.gpu.guardian import (
    Driver,
    GuardedActuator,
    Guardian,
    GuardianError,
    GuardianSettings,
    StateError,
)
from throttllem_env.gpu.probe import measure_switching, store_timing, stored_timing
from throttllem_env.live.doctor.findings import Finding, Verdict
from throttllem_env.live.doctor.rights import best_actuator

SUBJECT = "switching"


def recall(gpus: list[dict[str, Any]]) -> Finding:
    """What an earlier measurement found.

    Args:
        gpus: The facts of each GPU.
    """
    for gpu in gpus:
        for actuator in ("nvml", "zeusd"):
            if timing := stored_timing(actuator, str(gpu["name"])):
                text = f"{gpu['name']} through {actuator}: {_words(timing.median_s, timing.p99_s)}"
                return Finding(SUBJECT, Verdict.GOOD, text)
    advice = ("throttllem doctor --write (changes clocks near the top, then restores them)",) if gpus else ()
    return Finding(SUBJECT, Verdict.NOTE, "how long a change of clocks takes was not measured yet", advice)


def measure(restore_mhz: tuple[int, int] | None = None) -> tuple[Finding, dict[str, Any]]:
    """Change the clocks of all visible GPUs near their top, under a guardian's eyes, and restore them.

    Args:
        restore_mhz: What to give them back with; None for the driver's default.

    Returns:
        What was found, and the times.
    """
    name = best_actuator()
    if name is None:
        return Finding(SUBJECT, Verdict.PROBLEM, "not measured: clocks cannot be set, see rights"), {}
    try:
        actuator = make_actuator(name, restore_mhz=restore_mhz)
    except (ActuatorError, ValueError) as error:
        return Finding(SUBJECT, Verdict.PROBLEM, f"not measured: {error}"), {}
    settings = GuardianSettings(Driver(name))
    guarded = GuardedActuator(actuator, lambda: Guardian(settings), restore_mhz=restore_mhz)
    try:
        timings = [measure_switching(guarded, [info.index]) for info in guarded.gpus]
    except (ActuatorError, GuardianError, StateError) as error:
        return Finding(SUBJECT, Verdict.PROBLEM, f"a clock could not be set: {error}"), {}
    finally:
        guarded.close()
    slowest = max(timings, key=lambda timing: timing.median_s)
    store_timing(slowest)
    where = "seen under load" if slowest.under_load else "the driver's call alone, since no GPU was busy"
    text = f"{_words(slowest.median_s, slowest.p99_s)} on the slowest of {len(timings)} GPUs ({where})"
    facts = {
        "actuator": name,
        "median_s": slowest.median_s,
        "p99_s": slowest.p99_s,
        "samples": slowest.samples,
    }
    return Finding(SUBJECT, Verdict.GOOD, text), {"switching": facts}


def _words(median_s: float, p99_s: float) -> str:
    return f"a change takes {median_s * 1e3:.1f} ms, p99 {p99_s * 1e3:.1f} ms"
