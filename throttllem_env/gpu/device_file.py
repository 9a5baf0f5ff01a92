"""GPUs in a mapped file: what an emulated engine, an emulated driver and a test see of the same silicon.

The engine's executor reads its clock here and writes what its iterations drew; the driver (NVML's test
double, or the `emulated` actuator) sets clocks here and reads energy back; tests switch faults on. Nobody
waits for the engine: every field has one writer, and only drivers, which may be several processes, take turns
with a lock of the file, which the kernel frees when a process dies. Times are CLOCK_MONOTONIC, which all
processes share.

Energy is the integral of the idle power at each moment's clock, kept by the drivers, plus what iterations
drew beyond it, kept by the engine.
"""

import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x5550474D54485254
VERSION = 1
MAX_CLOCKS = 256
MAX_GPUS = 16
SAMPLE_NS = 200_000_000

HEADER = np.dtype(
    [
        ("magic", "<u8"),
        ("version", "<u4"),
        ("gpus", "<u4"),
        ("clocks", "<u4"),  # how many there are in the two tables
        ("mem_mhz", "<u4"),
        ("power_limit_mw", "<u4"),
        ("default_mhz", "<u4"),  # the clock without a lock
        ("name", "S96"),
        ("clock_mhz", "<u4", MAX_CLOCKS),  # supported SM clocks, ascending
        ("idle_w", "<f8", MAX_CLOCKS),  # idle power of a GPU at each
    ]
)

GPU = np.dtype(
    [
        # Written by drivers, under the lock.
        ("sm_mhz", "<u4"),
        ("locked_min_mhz", "<u4"),  # 0 without a lock
        ("locked_max_mhz", "<u4"),
        ("sets", "<u4"),
        ("resets", "<u4"),
        ("persistence", "<u4"),
        ("idle_j", "<f8"),  # integral of idle power up to idle_until_ns
        ("idle_until_ns", "<u8"),
        # Written by the engine that runs on it.
        ("busy_j", "<f8"),  # what iterations drew beyond idle power
        ("busy_w", "<f8"),  # power of the iteration under way
        ("busy_until_ns", "<u8"),
        ("iterations", "<u8"),
        # Written by whoever plays the silicon's part: tests.
        ("faults", "<u4"),  # of Fault
        ("set_delay_us", "<u4"),  # how long a set takes
        ("reasons", "<u8"),  # NVML's clock event reasons
        ("counter_wrap_mj", "<u8"),  # the energy counter starts anew there; 0: never
        ("counter_base_mj", "<i8"),  # added to the counter
        ("mig", "<u4"),
        ("temperature_c", "<u4"),
        # What the energy counter last showed, written by drivers; its update period, by tests; 0: at once.
        ("published_mj", "<u8"),
        ("published_ns", "<u8"),
        ("counter_period_us", "<u4"),
        # The engine's own account of what it ran, to hold meters against, and how well it kept time.
        ("late", "<u4"),  # iterations whose time was over when they began
        ("iteration_j", "<f8"),  # energy of all iterations, idle power included
        ("iteration_s", "<f8"),  # how long they took, as modelled
        ("late_max_ns", "<u8"),  # the latest that one ended
        ("given_up_ns", "<u8"),  # lag that was not caught up
        ("spare", "V72"),
    ]
)


class Fault(IntFlag):
    """What can be wrong with an emulated GPU."""

    NO_PERMISSION = 1
    LOST = 2
    NOT_SUPPORTED = 4
    SILENT = 8
    """A set or a reset succeeds and changes nothing."""
    SLOW = 16
    """A set takes 200 ms."""
    NO_COUNTER = 32
    """There is no counter of total energy."""


class DeviceFile:
    """GPUs of one node, shared between processes.

    Attributes:
        path: Where the file lies.
        header: What the GPUs have in common; a record of `HEADER`.
        gpus: A record of `GPU` for each; writing to it writes to the file.
    """

    def __init__(self, path: Path) -> None:
        """Map a file that `create` made.

        Raises:
            ValueError: It is none, or of another version.
        """
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._thread_turn = threading.Lock()
        if os.fstat(self._fd).st_size < HEADER.itemsize:
            os.close(self._fd)
            raise ValueError(f"{path}: no file of emulated GPUs")
        self._map = mmap.mmap(self._fd, 0)
        self.header: Any = np.ndarray((), HEADER, buffer=self._map)
        if self.header["magic"] != MAGIC or self.header["version"] != VERSION:
            raise ValueError(f"{path}: no file of emulated GPUs of version {VERSION}")
        self.gpus: Any = np.ndarray(int(self.header["gpus"]), GPU, buffer=self._map, offset=HEADER.itemsize)

    @classmethod
    def create(
        cls,
        path: Path,
        idle_w: Mapping[int, float],
        count: int,
        *,
        name: str = "Emulated GPU",
        power_limit_w: float = 400.0,
        set_delay_s: float = 0.0045,
    ) -> "DeviceFile":
        """Make the file, with all GPUs idle at their top clock.

        Args:
            path: Where; a file that is there is replaced.
            idle_w: Supported SM clocks, MHz, and the idle power of a GPU at each.
            count: How many GPUs.
            name: What the driver calls them.
            power_limit_w: Of each.
            set_delay_s: How long a change of a GPU's clock takes.

        Raises:
            ValueError: Too many clocks or GPUs, or none.
        """
        if not 1 <= count <= MAX_GPUS:
            raise ValueError(f"count = {count}: expected 1 to {MAX_GPUS} emulated GPUs")
        if not 1 <= len(idle_w) <= MAX_CLOCKS:
            raise ValueError(f"idle_w has {len(idle_w)} clocks: expected 1 to {MAX_CLOCKS}")
        clocks = sorted(idle_w)
        header, gpus = np.zeros((), HEADER), np.zeros(count, GPU)
        header["magic"], header["version"], header["gpus"] = MAGIC, VERSION, count
        header["clocks"], header["mem_mhz"], header["name"] = len(clocks), 1215, name.encode()[:95]
        header["power_limit_mw"], header["default_mhz"] = int(power_limit_w * 1e3), clocks[-1]
        header["clock_mhz"][: len(clocks)] = clocks
        header["idle_w"][: len(clocks)] = [idle_w[mhz] for mhz in clocks]
        gpus["sm_mhz"], gpus["persistence"], gpus["temperature_c"] = clocks[-1], 1, 40
        gpus["set_delay_us"], gpus["idle_until_ns"] = int(set_delay_s * 1e6), time.monotonic_ns()
        draft = path.with_name(path.name + ".new")
        draft.write_bytes(header.tobytes() + gpus.tobytes())
        draft.replace(path)
        return cls(path)

    @property
    def clocks_mhz(self) -> tuple[int, ...]:
        """Supported SM clocks, ascending."""
        return tuple(self.header["clock_mhz"][: int(self.header["clocks"])].tolist())

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Take turns with other drivers, and with other threads, whom a lock of the file does not see."""
        with self._thread_turn:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def idle_w(self, mhz: int) -> float:
        """Idle power of a GPU at the nearest supported clock."""
        clocks = self.header["clock_mhz"][: int(self.header["clocks"])].astype(np.int64)
        return float(self.header["idle_w"][int(np.abs(clocks - mhz).argmin())])

    def lock_clocks(self, gpu: int, min_mhz: int, max_mhz: int) -> None:
        """Change the clock of a GPU at once, as the driver does at the end of its delay."""
        with self._turn():
            self._settle(gpu)
            self.gpus[gpu]["locked_min_mhz"], self.gpus[gpu]["locked_max_mhz"] = min_mhz, max_mhz
            self.gpus[gpu]["sm_mhz"] = min(max_mhz, int(self.header["default_mhz"]))
            self.gpus[gpu]["sets"] += 1

    def reset_clocks(self, gpu: int) -> None:
        """Take the lock off a GPU."""
        with self._turn():
            self._settle(gpu)
            self.gpus[gpu]["locked_min_mhz"] = self.gpus[gpu]["locked_max_mhz"] = 0
            self.gpus[gpu]["sm_mhz"] = self.header["default_mhz"]
            self.gpus[gpu]["resets"] += 1

    def _settle(self, gpu: int) -> None:
        """Account for the idle power up to now."""
        record, now_ns = self.gpus[gpu], time.monotonic_ns()
        record["idle_j"] += self.idle_w(int(record["sm_mhz"])) * (now_ns - int(record["idle_until_ns"])) / 1e9
        record["idle_until_ns"] = now_ns

    def energy_j(self, gpu: int) -> float:
        """Energy of a GPU since the file was made."""
        with self._turn():
            self._settle(gpu)
            return float(self.gpus[gpu]["idle_j"] + self.gpus[gpu]["busy_j"])

    def counter_j(self, gpu: int) -> float:
        """What the driver's energy counter of a GPU shows: whole millijoules, renewed once in its period."""
        with self._turn():
            self._settle(gpu)
            record = self.gpus[gpu]
            period_ns = 1000 * int(record["counter_period_us"])
            if int(record["idle_until_ns"]) >= int(record["published_ns"]) + period_ns:
                total_mj = int(1e3 * (record["idle_j"] + record["busy_j"])) + int(record["counter_base_mj"])
                wrap_mj = int(record["counter_wrap_mj"])
                record["published_mj"] = max(0, total_mj) % wrap_mj if wrap_mj else max(0, total_mj)
                record["published_ns"] = record["idle_until_ns"]
            return int(record["published_mj"]) / 1e3

    def was_busy(self, gpu: int) -> bool:
        """Whether an iteration ran within the last sample period of the driver, 200 ms."""
        return time.monotonic_ns() < int(self.gpus[gpu]["busy_until_ns"]) + SAMPLE_NS

    def power_w(self, gpu: int) -> float:
        """Power of a GPU now."""
        record = self.gpus[gpu]
        if time.monotonic_ns() < int(record["busy_until_ns"]):
            return float(record["busy_w"])
        return self.idle_w(int(record["sm_mhz"]))

    def book_iteration(self, gpu: int, energy_j: float, end_ns: int, duration_s: float) -> None:
        """Account for an iteration; for the engine that runs on the GPU.

        Args:
            gpu: Which.
            energy_j: What the GPU draws in it, idle power included.
            end_ns: When it ends, CLOCK_MONOTONIC.
            duration_s: How long it takes.
        """
        record = self.gpus[gpu]
        record["busy_j"] += energy_j - self.idle_w(int(record["sm_mhz"])) * duration_s
        record["busy_w"] = energy_j / duration_s
        record["iteration_j"] += energy_j
        record["iteration_s"] += duration_s
        record["iterations"] += 1
        record["busy_until_ns"] = end_ns

    def book_lag(self, gpu: int, late_ns: int, given_up_ns: int, *, was_over: bool) -> None:
        """Account for an engine that does not keep time; for the engine that runs on the GPU.

        Args:
            gpu: Which.
            late_ns: How long after its time an iteration ended.
            given_up_ns: How much earlier lag will not be caught up.
            was_over: Whether the iteration's time was over before it began.
        """
        record = self.gpus[gpu]
        record["late"] += was_over
        record["given_up_ns"] += given_up_ns
        record["late_max_ns"] = max(int(record["late_max_ns"]), late_ns)

    def close(self) -> None:
        """Unmap the file; its records cannot be used any more."""
        del self.header, self.gpus
        self._map.close()
        os.close(self._fd)
