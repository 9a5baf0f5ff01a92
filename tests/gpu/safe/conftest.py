"""A SafeActuator over emulated GPUs that are busy, with a clock that passes when told to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.gpu import Caution, DeviceFile, GpuEvent, SafeActuator, Steadiness, make_actuator

IDLE_W = {210: 50.0, 810: 60.0, 990: 65.0, 1200: 70.0, 1410: 80.0}
BUSY_NS = 2**62


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class Events(list[GpuEvent]):
    """What was told."""

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self]


@pytest.fixture(scope="session")
def make_clock() -> type[Clock]:
    """For tests that need one for each example."""
    return Clock


@pytest.fixture(scope="session")
def make_device() -> Callable[[Path], DeviceFile]:
    """Makes three GPUs that are busy for good."""

    def make(folder: Path) -> DeviceFile:
        device = DeviceFile.create(folder / "gpus", IDLE_W, 3, set_delay_s=0.0)
        device.gpus["busy_w"], device.gpus["busy_until_ns"] = 300.0, BUSY_NS
        return device

    return make


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def device(tmp_path: Path, make_device: Callable[[Path], DeviceFile]) -> Iterator[DeviceFile]:
    device = make_device(tmp_path)
    yield device
    device.close()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture(params=["nvml", "emulated"])
def opened(
    request: pytest.FixtureRequest,
    nvml_double: Any,
    device: DeviceFile,
    events: Events,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., SafeActuator]]:
    """Opens one over each driver; changes of clock are made at once unless the test says otherwise."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = []

    def build(**caution: Any) -> SafeActuator:
        path = device.path if request.param == "emulated" else None
        inner = make_actuator(request.param, device_file=path)
        settings = Caution(**({"steadiness": Steadiness(0.0, 0)} | caution))
        made.append(SafeActuator(inner, settings, events.append, clock=clock, sleep=clock.sleep))
        return made[-1]

    with nvml_double.patched(device.path):
        yield build
        for safe in made:
            safe.close()
