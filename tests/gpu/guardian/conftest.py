"""Emulated GPUs, and guardians that no failing test leaves behind."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from throttllem_env.gpu import DeviceFile
from throttllem_env.gpu.guardian import Driver, Guardian, GuardianSettings, Ward
from throttllem_env.gpu.guardian.state import started_ticks

GENEROUS_S = 60.0
IDLE_W = {210: 50.0, 810: 60.0, 1410: 80.0}
GPUS = 2


def _wait_for(condition: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + GENEROUS_S
    while not condition():
        assert time.monotonic() < until_s, f"waited {GENEROUS_S:g} s for: {what}"
        time.sleep(0.002)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], object], str], None]:
    """Wait until something holds, however slow the machine is."""
    return _wait_for


@pytest.fixture
def device(tmp_path: Path) -> Iterator[DeviceFile]:
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, GPUS, set_delay_s=0.001)
    yield device
    device.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where guardians of a test keep their books; whoever wrote into its log is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="guardian-") as name:
        path = Path(name) / "state"
        yield path
        for pid in guardians(path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _wait_for(lambda pid=pid: started_ticks(pid) is None, f"the end of guardian {pid}")


def guardians(folder: Path) -> list[int]:
    """Guardians that work with a folder and are there."""
    log = folder / "guardian.log"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return [pid for pid in set(map(int, re.findall(r"guardian (\d+):", text))) if started_ticks(pid)]


@pytest.fixture
def settings(device: DeviceFile, folder: Path) -> GuardianSettings:
    """A guardian that is not put off by a machine that does not let its controller run for a while."""
    return GuardianSettings(
        Driver("emulated", str(device.path)),
        folder,
        beat_s=0.02,
        silence_s=GENEROUS_S,
        patience_s=GENEROUS_S,
        retry_s=0.01,
        start_s=GENEROUS_S,
        claim_s=GENEROUS_S,
        answer_s=GENEROUS_S,
    )


@pytest.fixture
def guardian(settings: GuardianSettings) -> Iterator[Guardian]:
    with Guardian(settings) as guardian:
        yield guardian


@pytest.fixture
def wards() -> list[Ward]:
    return [Ward(f"GPU-{index}", index) for index in range(GPUS)]


@pytest.fixture
def log(folder: Path) -> Callable[[], str]:
    """What the guardians wrote."""
    return lambda: (folder / "guardian.log").read_text(encoding="utf-8")
