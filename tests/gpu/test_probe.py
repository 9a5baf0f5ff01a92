"""What can be set here, and how long it takes, is found out and kept."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from throttllem_env.gpu import ActuatorError, DeviceFile, Fault, Trouble, make_actuator
from throttllem_env.gpu.probe import (
    CAP_SYS_ADMIN,
    SwitchTiming,
    has_capability,
    measure_switching,
    probe,
    store_timing,
    stored_timing,
)

CLOCKS = {210: 50.0, 1200: 60.0, 1275: 65.0, 1395: 70.0, 1410: 80.0}
TIMING = SwitchTiming("nvml", "NVIDIA A100", 0.005, 0.013, 24, True, 1.7e9)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", CLOCKS, 2, name="NVIDIA A100", set_delay_s=0.005)
    yield device
    device.close()


@pytest.fixture(params=["nvml", "emulated"])
def actuator(request, nvml_double: Any, device: DeviceFile):
    with nvml_double.patched(device.path):
        path = device.path if request.param == "emulated" else None
        actuator = make_actuator(request.param, device_file=path)
        yield actuator
        actuator.close()


def test_probing_writes_nothing(actuator, device):
    found = probe(actuator)
    assert found.actuator == actuator.name
    assert [gpu.index for gpu in found.gpus] == [0, 1]
    assert found.timing is None
    assert device.gpus["sets"].sum() + device.gpus["resets"].sum() == 0


def test_nvml_wants_root_or_a_capability(nvml_double, device, monkeypatch):
    with nvml_double.patched(device.path):
        actuator = make_actuator("nvml")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert probe(actuator).may_set
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr("throttllem_env.gpu.probe.has_capability", lambda bit: False)
        found = probe(actuator)
        assert not found.may_set
        assert "zeusd can set clocks for it" in found.reason
        monkeypatch.setattr("throttllem_env.gpu.probe.has_capability", lambda bit: bit == CAP_SYS_ADMIN)
        assert probe(actuator).may_set
        actuator.close()


def test_a_dry_run_may_set_nothing(device):
    actuator = make_actuator("observe", device_file=device.path)
    assert not probe(actuator).may_set
    with pytest.raises(ValueError, match="actuator = observe"):
        measure_switching(actuator, [0])
    actuator.close()


def test_capabilities_are_read_from_the_kernel(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000200000\n")
    assert has_capability(CAP_SYS_ADMIN, status)
    assert not has_capability(20, status)
    assert not has_capability(CAP_SYS_ADMIN, tmp_path / "missing")


@pytest.mark.parametrize("busy", [False, True])
def test_changes_are_timed_near_the_top_and_then_reset(actuator, device, busy):
    device.gpus["busy_until_ns"] = 2**62 if busy else 0
    timing = measure_switching(actuator, [0, 1], changes=4)
    assert timing.samples == 8
    assert 0.005 <= timing.median_s <= timing.p99_s
    assert timing.under_load == busy
    assert (timing.actuator, timing.gpu_name) == (actuator.name, "NVIDIA A100")
    assert timing.switching().median_s == timing.median_s
    assert device.gpus["sets"].tolist() == [4, 4]
    assert device.gpus["resets"].tolist() == [1, 1]
    assert device.gpus["sm_mhz"].tolist() == [1410, 1410]


def test_measuring_never_leaves_the_neighbourhood_of_the_top(actuator, device):
    asked = []
    lock = actuator.lock
    actuator.lock = lambda gpus, mhz: asked.append(mhz) or lock(gpus, mhz)
    measure_switching(actuator, [0], changes=4)
    assert asked == [1275, 1410, 1275, 1410]


def test_gpus_are_reset_when_measuring_fails(actuator, device):
    device.gpus[1]["faults"] = Fault.LOST
    with pytest.raises(ActuatorError) as raised:
        measure_switching(actuator, [0, 1], changes=4)
    assert raised.value.trouble is Trouble.LOST
    assert device.gpus[0]["sm_mhz"] == 1410
    assert device.gpus[0]["resets"] == 1


def test_a_change_that_is_never_seen_counts_as_the_call(device):
    now = [0.0]

    def sleep(duration_s: float) -> None:
        now[0] += duration_s

    device.gpus["busy_until_ns"] = 2**62
    device.gpus["faults"] = Fault.SILENT
    actuator = make_actuator("emulated", device_file=device.path)
    timing = measure_switching(actuator, [0], changes=2, clock=lambda: now[0], sleep=sleep)
    actuator.close()
    assert not timing.under_load
    assert timing.p99_s == 0.0


def test_measurements_are_kept_and_found_again(actuator, device):
    timing = measure_switching(actuator, [0], changes=2)
    path = store_timing(timing)
    assert stored_timing(actuator.name, "NVIDIA A100") == timing
    assert probe(actuator).timing == timing
    assert path.is_relative_to(os.environ["XDG_CACHE_HOME"])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({"median_s": 1}), "NaN"],
)
def test_files_without_sense_are_no_measurements(text):
    store_timing(TIMING).write_text(text)
    assert stored_timing("nvml", "NVIDIA A100") is None


@pytest.mark.parametrize("change", [{"median_s": -1.0}, {"p99_s": 0.001}, {"gpu_name": "T4"}])
def test_values_without_sense_are_no_measurements(change):
    path = store_timing(TIMING)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert stored_timing("nvml", "NVIDIA A100") is None


def test_a_gpus_name_leads_nowhere_else(tmp_path):
    timing = SwitchTiming("nvml", "../../etc/passwd\n", 0.005, 0.013, 24, True, 1.7e9)
    assert store_timing(timing, tmp_path).parent == tmp_path
    assert stored_timing("nvml", "../../etc/passwd\n", tmp_path) == timing
