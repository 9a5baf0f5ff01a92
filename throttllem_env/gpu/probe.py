"""What can be set here, by whom, and how long a change takes.

`probe` only looks. `measure_switching` changes clocks, between the top and one just below, and resets them;
its result is stored in the user's cache folder, for the next `probe` and for a scenario's `switching`.
"""

import hashlib
import json
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from throttllem_env.gpu.actuator import Actuator, GpuInfo
from throttllem_env.scenario import Switching

CAP_SYS_ADMIN = 21
"""The bit of the Linux capability that NVML asks for (linux/capability.h)."""
NEAR_TOP = 0.9
"""Share of the top clock below which measuring never goes: a loaded GPU must not feel it."""


@dataclass(frozen=True)
class SwitchTiming:
    """How long one GPU takes to change its clock.

    Attributes:
        actuator: Through which actuator.
        gpu_name: On which product.
        median_s: Median, seconds.
        p99_s: 99th percentile, seconds.
        samples: How many changes were timed.
        under_load: Whether it includes the time until the clock under load had changed; otherwise only the
            driver's call was timed, since an idle GPU shows nothing.
        measured_at: When, seconds since 1970.
    """

    actuator: str
    gpu_name: str
    median_s: float
    p99_s: float
    samples: int
    under_load: bool
    measured_at: float

    def switching(self) -> Switching:
        """The same as a scenario's setting."""
        return Switching(median_s=self.median_s, p99_s=self.p99_s)


@dataclass(frozen=True)
class Capabilities:
    """What an actuator can do here.

    Attributes:
        actuator: Its name.
        may_set: Whether this process may set clocks, as far as can be told without trying.
        reason: Why, or why not.
        gpus: The GPUs.
        timing: How long a change takes, where it was measured before; the slowest product's.
    """

    actuator: str
    may_set: bool
    reason: str
    gpus: tuple[GpuInfo, ...]
    timing: SwitchTiming | None


def probe(actuator: Actuator) -> Capabilities:
    """Find out what can be set, by whom, and how long a change took when it was last measured.

    Args:
        actuator: An open one; nothing is written.
    """
    may_set, reason = _permission(actuator)
    stored = [stored_timing(actuator.name, gpu.name) for gpu in actuator.gpus]
    known = [timing for timing in stored if timing is not None]
    slowest = max(known, key=lambda timing: timing.median_s, default=None)
    return Capabilities(actuator.name, may_set, reason, actuator.gpus, slowest)


def _permission(actuator: Actuator) -> tuple[bool, str]:
    if not actuator.writes:
        return False, "a dry run: everything is read, nothing is set"
    if actuator.name == "zeusd":
        return True, "zeusd offers gpu-control to this user"
    if actuator.name == "emulated":
        return True, "emulated GPUs belong to whoever may write their file"
    if os.geteuid() == 0:
        return True, "this process runs as root"
    if has_capability(CAP_SYS_ADMIN):
        return True, "this process has the capability CAP_SYS_ADMIN"
    return False, "this process has neither root's rights nor CAP_SYS_ADMIN; zeusd can set clocks for it"


def has_capability(bit: int, status: Path = Path("/proc/self/status")) -> bool:
    """Whether a process has a Linux capability in effect.

    Args:
        bit: Its number.
        status: The process's status file.
    """
    try:
        match = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", status.read_text(), re.MULTILINE)
    except OSError:
        return False
    return match is not None and bool(int(match.group(1), 16) >> bit & 1)


def measure_switching(
    actuator: Actuator,
    gpus: Sequence[int],
    *,
    changes: int = 24,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> SwitchTiming:
    """Time changes between the top clock and one just below; the GPUs are reset in the end.

    Args:
        actuator: One that writes.
        gpus: Which GPUs, of one product; their indices.
        changes: How many changes of each to time.
        clock: Time, seconds; for tests.
        sleep: Waits, seconds; for tests.

    Returns:
        The times over all of them.

    Raises:
        ActuatorError: A change failed; the GPUs are reset all the same.
        ValueError: The actuator does not write, or there is nothing to measure.
    """
    if not actuator.writes or not gpus or changes < 1:
        raise ValueError(f"actuator = {actuator.name}: changes can be timed only on GPUs that it may set")
    infos = {info.index: info for info in actuator.gpus}
    took_s: list[float] = []
    under_load = True
    try:
        for change in range(changes):
            for gpu in gpus:
                mhz = _near_top(infos[gpu])[change % 2]
                spent_s, seen = _timed_change(actuator, gpu, mhz, clock, sleep)
                took_s.append(spent_s)
                under_load = under_load and seen
    finally:
        reset = actuator.reset(gpus)
    for error in reset.failed.values():
        raise error
    return SwitchTiming(
        actuator=actuator.name,
        gpu_name=infos[gpus[0]].name,
        median_s=statistics.median(took_s),
        p99_s=sorted(took_s)[math.ceil(0.99 * len(took_s)) - 1],
        samples=len(took_s),
        under_load=under_load,
        measured_at=time.time(),
    )


def _near_top(info: GpuInfo) -> tuple[int, int]:
    """The lowest clock that is still near the top, and the top; the same where there is but one."""
    near = [mhz for mhz in info.clocks_mhz if mhz >= NEAR_TOP * info.top_mhz]
    return near[0], info.top_mhz


def _timed_change(
    actuator: Actuator, gpu: int, mhz: int, clock: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[float, bool]:
    """Seconds that a change took, and whether it was seen under load."""
    start_s = clock()
    outcome = actuator.lock((gpu,), mhz)
    called_s = clock() - start_s
    for error in outcome.failed.values():
        raise error
    while clock() - start_s < called_s + 1.0:
        reading = actuator.read(gpu)
        if not reading.tells:
            return called_s, False
        if abs(reading.sm_mhz - mhz) <= 1:
            return clock() - start_s, True
        sleep(0.001)
    return called_s, False


def timings_folder() -> Path:
    """Where measured times lie: in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path("~/.cache").expanduser()) / "throttllem-env" / "switching"


def store_timing(timing: SwitchTiming, folder: Path | None = None) -> Path:
    """Keep a measurement for later.

    Args:
        timing: From `measure_switching`.
        folder: Where; None for `timings_folder()`.

    Returns:
        The file.
    """
    folder = folder or timings_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / _file_name(timing.actuator, timing.gpu_name)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(asdict(timing), indent=1))
    draft.replace(path)
    return path


def stored_timing(actuator: str, gpu_name: str, folder: Path | None = None) -> SwitchTiming | None:
    """Look a measurement up.

    Args:
        actuator: Through which actuator.
        gpu_name: On which product.
        folder: Where; None for `timings_folder()`.

    Returns:
        It; None if there is none that makes sense.
    """
    path = (folder or timings_folder()) / _file_name(actuator, gpu_name)
    try:
        timing = SwitchTiming(**json.loads(path.read_text()))
        timing.switching()
    except (OSError, ValueError, TypeError):
        return None
    sane = timing.p99_s < math.inf and (timing.actuator, timing.gpu_name) == (actuator, gpu_name)
    return timing if sane else None


def _file_name(actuator: str, gpu_name: str) -> str:
    """A name that stays within its folder, whatever a driver calls its GPUs."""
    plain = re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-")[:60]
    digest = hashlib.sha256(f"{actuator}/{gpu_name}".encode()).hexdigest()[:8]
    return f"{actuator}-{plain}-{digest}.json"
