"""The driver and its GPUs, as they are: read-only, and one that cannot be read hides no other."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from throttllem_env.gpu.reasons import EXPLANATIONS, reason_names
from throttllem_env.live.doctor.findings import Finding, Verdict

NO_DRIVER = (
    "simulation, training and `throttllem serve` without control of clocks need none",
    "on a machine with NVIDIA GPUs: install the driver, then check with nvidia-smi",
    "in a container: docker run --gpus all --cap-add SYS_ADMIN ...",
)


def examine_driver() -> tuple[list[Finding], list[dict[str, Any]]]:
    """Look at the driver and at every GPU.

    Returns:
        What was found, and the facts of each GPU.
    """
    try:
        import pynvml
    except ImportError:
        advice = ("pip install nvidia-ml-py",)
        return [Finding("driver", Verdict.PROBLEM, "the package nvidia-ml-py is missing", advice)], []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [Finding("driver", Verdict.PROBLEM, f"no NVIDIA driver: {error}", NO_DRIVER)], []
    try:
        return _examine(pynvml)
    finally:
        pynvml.nvmlShutdown()


def _examine(nvml: Any) -> tuple[list[Finding], list[dict[str, Any]]]:
    version = _ask(nvml, nvml.nvmlSystemGetDriverVersion)
    count = _ask(nvml, nvml.nvmlDeviceGetCount) or 0
    verdict = Verdict.GOOD if count else Verdict.PROBLEM
    found = [Finding("driver", verdict, f"NVIDIA {version}, {count} GPU{'s' * (count != 1)}")]
    facts = []
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:
            advice = ("look for Xid in the kernel's log: dmesg | grep -i xid",)
            found.append(Finding(f"GPU {index}", Verdict.PROBLEM, str(error), advice))
            continue
        gpu = _facts(nvml, index, handle)
        facts.append(gpu)
        found.append(_judge(gpu))
    return found, facts


def _ask(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """An answer of the driver, or None where it has none."""
    with suppress(nvml.NVMLError):
        return question(*arguments)
    return None


def _facts(nvml: Any, index: int, handle: Any) -> dict[str, Any]:
    """All that there is to know about a GPU; None where the driver does not tell."""

    def ask(question: Callable[..., Any], *arguments: Any) -> Any:
        return _ask(nvml, question, handle, *arguments)

    memory = ask(nvml.nvmlDeviceGetSupportedMemoryClocks)
    clocks = ask(nvml.nvmlDeviceGetSupportedGraphicsClocks, max(memory)) if memory else None
    bits = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
    limit_mw, mig = ask(nvml.nvmlDeviceGetEnforcedPowerLimit), ask(nvml.nvmlDeviceGetMigMode)
    return {
        "index": index,
        "uuid": ask(nvml.nvmlDeviceGetUUID),
        "name": ask(nvml.nvmlDeviceGetName),
        "clocks_mhz": sorted(clocks) if clocks else [],
        "sm_mhz": ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        "power_limit_w": None if limit_mw is None else limit_mw / 1e3,
        "persistence": ask(nvml.nvmlDeviceGetPersistenceMode),
        "mig": bool(mig and mig[0]),
        "energy_counter": ask(nvml.nvmlDeviceGetTotalEnergyConsumption) is not None,
        "reasons": sorted(reason_names(bits)) if bits is not None else [],
    }


def _judge(gpu: dict[str, Any]) -> Finding:
    """Whether a GPU's clock can be controlled."""
    subject, clocks = f"GPU {gpu['index']}", gpu["clocks_mhz"]
    if gpu["mig"]:
        text = f"{gpu['name']}: MIG is on, and the clock is the whole GPU's, not one instance's"
        return Finding(subject, Verdict.PROBLEM, text, (f"sudo nvidia-smi -i {gpu['index']} -mig 0",))
    if not clocks:
        return Finding(subject, Verdict.PROBLEM, f"{gpu['name']}: the driver lists no clocks to lock")
    text = f"{gpu['name']}, {len(clocks)} clocks of {clocks[0]}-{clocks[-1]} MHz, now {gpu['sm_mhz']} MHz"
    text += "".join(f"; {EXPLANATIONS.get(name, name)}" for name in gpu["reasons"])
    notes: list[str] = []
    advice: tuple[str, ...] = ()
    if gpu["persistence"] == 0:
        notes.append("persistence mode is off: the driver forgets locks when its last client ends")
        advice = (f"sudo nvidia-smi -i {gpu['index']} -pm 1",)
    if not gpu["energy_counter"]:
        notes.append("no energy counter: energy is integrated from samples of power")
    verdict = Verdict.NOTE if notes else Verdict.GOOD
    return Finding(subject, verdict, "; ".join([text, *notes]), advice)
