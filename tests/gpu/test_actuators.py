"""Actuators over real pynvml and the double, and straight on the file, behave alike."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throttllem_env.gpu import (
    ActuatorError,
    ClockRangeError,
    DeviceFile,
    Fault,
    Trouble,
    make_actuator,
    snap_mhz,
)
from throttllem_env.gpu.nvml import NvmlActuator, PersistenceWarning

IDLE_W = {210: 50.0, 810: 60.0, 990: 65.0, 1005: 66.0, 1410: 80.0}
CLOCKS = tuple(IDLE_W)
BUSY_NS = 2**62


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, 4, set_delay_s=0.0)
    yield device
    device.close()


@pytest.fixture
def nvml(nvml_double: Any, device: DeviceFile, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with nvml_double.patched(device.path):
        yield


@pytest.fixture(params=["nvml", "emulated"])
def kind(request, nvml):
    return request.param


def opened(kind: str, device: DeviceFile, *args: Any, **settings: Any) -> Any:
    return make_actuator(kind, *args, device_file=device.path if kind == "emulated" else None, **settings)


@pytest.fixture
def actuator(kind, device):
    actuator = opened(kind, device)
    yield actuator
    actuator.close()


def test_gpus_are_described(actuator, device):
    assert [gpu.index for gpu in actuator.gpus] == [0, 1, 2, 3]
    gpu = actuator.gpus[2]
    assert gpu.clocks_mhz == CLOCKS
    assert gpu.top_mhz == 1410
    assert gpu.uuid == "GPU-00000000-0000-0000-0000-000000000002"
    assert (gpu.name, gpu.power_limit_w, gpu.persistence, gpu.counter) == ("Emulated GPU", 400.0, True, True)


def test_locks_and_resets_change_the_named_gpus(actuator, device):
    outcome = actuator.lock([1, 3], 1000)
    assert outcome.ok
    assert outcome.mhz == 1005
    assert sorted(outcome.took_s) == [1, 3]
    assert device.gpus["sm_mhz"].tolist() == [1410, 1005, 1410, 1005]
    assert device.gpus["locked_min_mhz"].tolist() == [0, 1005, 0, 1005]
    assert actuator.reset([3]).ok
    assert device.gpus["sm_mhz"].tolist() == [1410, 1005, 1410, 1410]


def test_gpus_change_together(actuator, device):
    """Four changes take less time than they would one after another."""
    device.gpus["set_delay_us"] = 50_000
    for _ in range(10):  # a busy machine may start threads late
        start_s = time.monotonic()
        took_s = actuator.lock([0, 1, 2, 3], 810).took_s.values()
        assert min(took_s) >= 0.05
        if time.monotonic() - start_s < 0.9 * sum(took_s):
            return
    pytest.fail("changes took turns in ten tries")


def test_a_reset_gives_back_what_the_operator_asked_for(kind, device):
    actuator = opened(kind, device, restore_mhz=(210, 1000))
    actuator.lock([0], 810)
    actuator.reset([0])
    assert device.gpus[0]["locked_min_mhz"] == 210
    assert device.gpus[0]["locked_max_mhz"] == 1005
    assert device.gpus[0]["resets"] == 0
    actuator.close()


@pytest.mark.parametrize(
    ("restore_mhz", "message"), [((990, 810), "MIN at most MAX"), ((100, 1410), "the nearest is 210")]
)
def test_a_restore_setting_that_no_gpu_has_is_refused_at_once(kind, device, restore_mhz, message):
    with pytest.raises(ValueError, match=message):
        opened(kind, device, restore_mhz=restore_mhz)


def test_readings_show_what_the_gpu_does(actuator, device):
    idle = actuator.read(0)
    assert (idle.sm_mhz, idle.power_w, idle.utilization, idle.temperature_c) == (1410, 80.0, 0.0, 40.0)
    assert idle.reasons == {"idle"}
    assert not idle.tells
    device.gpus[0]["busy_w"], device.gpus[0]["busy_until_ns"] = 300.0, BUSY_NS
    busy = actuator.read(0)
    assert (busy.power_w, busy.utilization, busy.reasons) == (300.0, 1.0, frozenset())
    assert busy.tells
    assert busy.energy_j >= idle.energy_j
    assert busy.time_s >= idle.time_s
    device.gpus[0]["reasons"] = 0x4C
    slowed = actuator.read(0)
    assert slowed.reasons == {"power-cap", "hw-slowdown", "hw-thermal"}
    assert not slowed.tells


def test_a_gpu_without_a_counter_has_no_energy(kind, device):
    device.gpus["faults"] = Fault.NO_COUNTER
    actuator = opened(kind, device)
    assert not actuator.gpus[0].counter
    assert actuator.read(0).energy_j is None
    actuator.close()


FAULTS = [
    (Fault.NO_PERMISSION, Trouble.NO_PERMISSION),
    (Fault.LOST, Trouble.LOST),
    (Fault.NOT_SUPPORTED, Trouble.NOT_SUPPORTED),
]


@pytest.mark.parametrize(("fault", "trouble"), FAULTS)
def test_a_fault_of_one_gpu_is_its_own(actuator, device, fault, trouble):
    device.gpus[2]["faults"] = fault
    for change in (lambda: actuator.lock([0, 2], 810), lambda: actuator.reset([0, 2])):
        outcome = change()
        assert not outcome.ok
        assert list(outcome.took_s) == [0]
        assert outcome.failed[2].trouble is trouble
        assert outcome.failed[2].gpu == 2
        assert "GPU 2" in str(outcome.failed[2])
    assert device.gpus[2]["sm_mhz"] == 1410


def test_a_lost_gpu_cannot_be_read(actuator, device):
    device.gpus[2]["faults"] = Fault.LOST
    with pytest.raises(ActuatorError, match="GPU 2") as raised:
        actuator.read(2)
    assert raised.value.trouble is Trouble.LOST


def test_a_lost_gpu_is_no_hindrance_to_the_others(nvml, device):
    device.gpus[1]["faults"] = Fault.LOST
    actuator = NvmlActuator([0, 2])
    assert actuator.lock([0, 2], 810).ok
    actuator.close()
    with pytest.raises(ActuatorError, match="GPU 1") as raised:
        NvmlActuator([0, 1])
    assert raised.value.trouble is Trouble.LOST


def test_a_slow_set_takes_its_time(actuator, device):
    device.gpus[0]["faults"] = Fault.SLOW
    outcome = actuator.lock([0], 810)
    assert outcome.ok
    assert outcome.took_s[0] >= 0.2


def test_a_driver_that_does_not_answer_is_not_waited_for(kind, device):
    device.gpus[0]["faults"] = Fault.SLOW
    for _ in range(10):  # a busy machine may look so late that the change is done
        actuator = opened(kind, device, timeout_s=0.01)
        outcome = actuator.lock([0], 810)
        actuator.close()
        if outcome.failed:
            assert outcome.failed[0].trouble is Trouble.TIMEOUT
            return
    pytest.fail("the change was waited for in ten tries")


def test_the_library_stays_while_a_change_is_under_way(nvml, device):
    import pynvml

    device.gpus[0]["faults"] = Fault.SLOW
    for _ in range(10):  # a busy machine may close so late that the change is done
        actuator = NvmlActuator(timeout_s=0.01)
        outcome = actuator.lock([0], 810)
        actuator.close()
        with suppress(pynvml.NVMLError_Uninitialized):
            assert pynvml.nvmlDeviceGetCount() == 4
            assert outcome.failed[0].trouble is Trouble.TIMEOUT
            return
    pytest.fail("the library was closed in ten tries")


def test_a_silent_set_looks_like_a_success(actuator, device):
    """An actuator does not judge: `SafeActuator` finds out."""
    device.gpus[0]["faults"] = Fault.SILENT
    assert actuator.lock([0], 810).ok
    assert device.gpus[0]["sm_mhz"] == 1410


def test_gpus_that_it_was_not_opened_for_are_refused(kind, device):
    actuator = opened(kind, device, [1])
    for call in (lambda: actuator.lock([1, 2], 810), lambda: actuator.reset([2]), lambda: actuator.read(2)):
        with pytest.raises(ActuatorError, match="GPU 2: not opened for it; open: 1"):
            call()
    assert device.gpus["sm_mhz"].tolist() == [1410] * 4
    actuator.close()


def test_closing_twice_is_harmless_and_leaves_clocks_alone(kind, device):
    actuator = opened(kind, device)
    actuator.lock([0], 810)
    actuator.close()
    actuator.close()
    assert device.gpus[0]["sm_mhz"] == 810


def test_mig_is_refused(kind, device):
    device.gpus[3]["mig"] = 1
    with pytest.raises(ActuatorError, match="the clock is the whole GPU's") as raised:
        opened(kind, device)
    assert raised.value.trouble is Trouble.NOT_SUPPORTED
    opened(kind, device, [0, 1, 2]).close()


def test_missing_persistence_is_warned_about(nvml, device):
    device.gpus["persistence"] = [1, 0, 1, 0]
    with pytest.warns(PersistenceWarning, match=r"GPU 1,3.*nvidia-smi -i 1,3 -pm 1"):
        actuator = NvmlActuator()
    assert [gpu.persistence for gpu in actuator.gpus] == [True, False, True, False]
    actuator.close()


@pytest.mark.parametrize(
    ("wanted", "visible", "expected"),
    [
        ([2, 0], None, [2, 0]),
        (["GPU-00000000-0000-0000-0000-000000000003", 1], None, [3, 1]),
        ([1, "1"], None, [1]),
        (None, "3,1", [3, 1]),
        (None, "GPU-00000000-0000-0000-0000-000000000002", [2]),
        (None, "0,7,1", [0]),  # CUDA stops at the first that does not exist
        ([1], "3,1", [1]),
    ],
)
def test_gpus_are_chosen_by_name_and_visibility(nvml, monkeypatch, wanted, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    actuator = NvmlActuator(wanted)
    assert [gpu.index for gpu in actuator.gpus] == expected
    actuator.close()


@pytest.mark.parametrize(
    ("wanted", "visible", "message"),
    [
        ([4], None, r"gpu = 4: does not exist; GPUs: 0 \(GPU-"),
        (["GPU-0"], None, "is ambiguous"),
        (["GPU-f"], None, "does not exist"),
        ([-1], None, "gpu = -1: does not exist"),
        ([0], "1,2", r"GPU 0: hidden by CUDA_VISIBLE_DEVICES; visible \(driver's index\): 1, 2"),
        (None, "", "hides them all"),
        (None, "-1", "hides them all"),
        (None, "MIG-1234", "a MIG slice has no clock"),
        (["MIG-1234"], None, "a MIG slice has no clock"),
    ],
)
def test_gpus_that_are_not_there_are_refused(nvml, monkeypatch, wanted, visible, message):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ActuatorError, match=message):
        NvmlActuator(wanted)


def test_numbers_of_unlike_gpus_must_be_the_drivers():
    from throttllem_env.gpu.selection import choose_gpus

    uuids, names = ["GPU-a", "GPU-b"], ["A100", "T4"]
    with pytest.raises(ActuatorError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        choose_gpus(None, uuids, {"CUDA_VISIBLE_DEVICES": "1"}, names)
    ordered = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert choose_gpus(None, uuids, ordered, names) == [1]
    assert choose_gpus(None, uuids, {"CUDA_VISIBLE_DEVICES": "GPU-b"}, names) == [1]


def test_without_a_driver_there_is_a_clear_error(nvml_double, tmp_path):
    with nvml_double.patched(tmp_path / "nothing"), pytest.raises(ActuatorError) as raised:
        NvmlActuator()
    assert raised.value.trouble is Trouble.UNAVAILABLE
    assert "throttllem doctor" in str(raised.value)


def test_a_process_of_its_own_works_the_same_way(nvml_double, device):
    code = """
from throttllem_env.gpu import make_actuator
actuator = make_actuator("nvml", ["1"])
print(actuator.lock([1], 900).mhz, actuator.read(1).sm_mhz)
actuator.close()
"""
    done = nvml_double.run(device.path, code)
    assert done.stdout == "990 990\n", done.stderr
    assert device.gpus[1]["sm_mhz"] == 990


def test_observing_sets_nothing_and_remembers_wishes(nvml, device):
    actuator = make_actuator()
    assert (actuator.name, actuator.writes) == ("observe", False)
    outcome = actuator.lock([0, 1], 1000)
    assert outcome.ok
    assert outcome.mhz == 1005
    assert actuator.asked_mhz == {0: 1005, 1: 1005}
    actuator.reset([0])
    assert actuator.asked_mhz == {1: 1005}
    with pytest.raises(ClockRangeError):
        actuator.lock([0], 1411)
    assert actuator.read(0).sm_mhz == 1410
    assert device.gpus["sets"].sum() + device.gpus["resets"].sum() == 0
    actuator.close()


def test_observing_works_on_emulated_gpus(device):
    actuator = make_actuator("observe", device_file=device.path)
    assert len(actuator.gpus) == 4
    actuator.close()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nvm", {}, "actuator = 'nvm': did you mean 'nvml'"),
        ("emulated", {}, "needs the file"),
        ("nvml", {"device_file": Path("x")}, "only emulated and observe"),
    ],
)
def test_actuators_are_known_by_name(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_actuator(name, **options)


@given(st.floats(allow_nan=True) | st.integers(-(10**6), 10**6), st.sets(st.integers(1, 3000), min_size=1))
def test_only_supported_clocks_come_out_of_snapping(mhz, clocks):
    ascending = sorted(clocks)
    if not ascending[0] <= mhz <= ascending[-1]:
        with pytest.raises(ClockRangeError) as raised:
            snap_mhz(mhz, ascending)
        assert raised.value.nearest_mhz in (ascending[0], ascending[-1])
        return
    snapped = snap_mhz(mhz, ascending)
    assert snapped in clocks
    assert abs(snapped - mhz) == min(abs(clock - mhz) for clock in clocks)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(st.floats(allow_nan=True) | st.integers(-(2**40), 2**40) | st.integers(200, 1420))
def test_a_wrong_clock_never_reaches_the_driver(actuator, device, mhz):
    sets = int(device.gpus[1]["sets"])
    if not 210 <= mhz <= 1410:
        with pytest.raises(ClockRangeError, match=r"the nearest is (210|1410)"):
            actuator.lock([0, 1], mhz)
        assert device.gpus[1]["sets"] == sets
        return
    outcome = actuator.lock([0, 1], mhz)
    assert outcome.mhz in CLOCKS
    assert device.gpus["locked_max_mhz"].tolist()[:2] == [outcome.mhz] * 2
    assert device.gpus["locked_min_mhz"].tolist()[:2] == [outcome.mhz] * 2
