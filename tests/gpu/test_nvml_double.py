"""The double is what pynvml takes for a driver, and what DeviceFile takes for GPUs."""

import threading
from pathlib import Path
from typing import Any

import pynvml
import pytest

from throttllem_env.gpu import DeviceFile, Fault
from throttllem_env.gpu.device_file import GPU, HEADER

IDLE_W = {210: 50.0, 810: 60.0, 1410: 80.0}


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, 2, name="Emulated A100", set_delay_s=0.0)
    yield device
    device.close()


@pytest.fixture
def handles(nvml_double: Any, device: DeviceFile):
    with nvml_double.patched(device.path):
        pynvml.nvmlInit()
        yield [pynvml.nvmlDeviceGetHandleByIndex(gpu) for gpu in range(2)]


def test_c_and_numpy_lay_the_file_out_alike(nvml_double):
    expected = {"header": HEADER.itemsize, "gpu": GPU.itemsize}
    for record, dtype in (("header", HEADER), ("gpu", GPU)):
        for name, (_, offset) in dtype.fields.items():
            expected[f"{record}.{name}"] = offset
    assert nvml_double.layout() == expected


def test_a_process_of_its_own_loads_it_as_the_driver(nvml_double, device):
    code = """
import pynvml
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByUUID("GPU-00000000-0000-0000-0000-000000000001")
pynvml.nvmlDeviceSetGpuLockedClocks(gpu, 810, 810)
print(pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlDeviceGetName(gpu), pynvml.nvmlDeviceGetIndex(gpu))
"""
    done = nvml_double.run(device.path, code)
    assert done.stdout == "999.0-double Emulated A100 1\n", done.stderr
    assert device.gpus["sm_mhz"].tolist() == [1410, 810]


def test_without_a_file_there_is_no_driver(nvml_double, tmp_path):
    with nvml_double.patched(tmp_path / "nothing"), pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()


def test_other_code_in_this_process_does_not_find_it(nvml_double, device):
    import ctypes

    with nvml_double.patched(device.path):
        pynvml.nvmlInit()
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return
    assert not hasattr(library, "double_layout")


def test_clocks_are_listed_and_set_and_reset(handles, device):
    gpu = handles[1]
    assert pynvml.nvmlDeviceGetSupportedMemoryClocks(gpu) == [1215]
    assert pynvml.nvmlDeviceGetSupportedGraphicsClocks(gpu, 1215) == [1410, 810, 210]
    pynvml.nvmlDeviceSetGpuLockedClocks(gpu, 210, 810)
    assert pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM) == 810
    assert device.gpus[1]["locked_min_mhz"] == 210
    pynvml.nvmlDeviceResetGpuLockedClocks(gpu)
    assert device.gpus[1]["sm_mhz"] == 1410
    assert (device.gpus[1]["sets"], device.gpus[1]["resets"]) == (1, 1)


@pytest.mark.parametrize("clocks", [(810, 210), (1410, 1425), (100, 195)])
def test_clocks_that_no_gpu_has_are_refused(handles, device, clocks):
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceSetGpuLockedClocks(handles[0], *clocks)
    assert device.gpus[0]["sets"] == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.NO_PERMISSION, pynvml.NVMLError_NoPermission),
        (Fault.LOST, pynvml.NVMLError_GpuIsLost),
        (Fault.NOT_SUPPORTED, pynvml.NVMLError_NotSupported),
    ],
)
def test_faults_are_the_drivers_errors(handles, device, fault, error):
    device.gpus[0]["faults"] = fault
    with pytest.raises(error):
        pynvml.nvmlDeviceSetGpuLockedClocks(handles[0], 210, 210)
    with pytest.raises(error):
        pynvml.nvmlDeviceResetGpuLockedClocks(handles[0])
    pynvml.nvmlDeviceSetGpuLockedClocks(handles[1], 210, 210)
    assert device.gpus["sm_mhz"].tolist() == [1410, 210]


def test_a_silent_fault_says_yes_and_does_nothing(handles, device):
    pynvml.nvmlDeviceSetGpuLockedClocks(handles[0], 810, 810)
    device.gpus[0]["faults"] = Fault.SILENT
    pynvml.nvmlDeviceSetGpuLockedClocks(handles[0], 210, 210)
    assert pynvml.nvmlDeviceGetClockInfo(handles[0], pynvml.NVML_CLOCK_SM) == 810
    assert device.gpus[0]["sets"] == 2


def test_energy_is_the_one_of_the_file(handles, device):
    device.book_iteration(0, 123.0, 0, 1e-9)
    before_j = device.energy_j(0)
    shown_j = pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0]) / 1e3
    assert before_j - 0.001 <= shown_j <= device.energy_j(0)
    assert shown_j >= 122.9


def test_the_counter_wraps_restarts_and_keeps_its_period(handles, device):
    gpu = device.gpus[0]
    gpu["counter_base_mj"], gpu["counter_wrap_mj"] = 10**9, 1000
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0]) < 1000
    assert device.counter_j(0) < 1.0
    gpu["counter_wrap_mj"] = 0
    gpu["counter_base_mj"] = -(10**9)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0]) == 0
    gpu["counter_base_mj"], gpu["counter_period_us"] = 0, 3_600_000_000
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0]) == 0
    gpu["faults"] = Fault.NO_COUNTER
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0])


def test_power_and_load_follow_the_engine(handles, device):
    gpu = handles[0]
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 80_000
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu == 0
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 1
    device.gpus[0]["busy_w"], device.gpus[0]["busy_until_ns"] = 300.0, 2**62
    device.gpus[0]["reasons"] = 4
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 300_000
    assert pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu == 100
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 4
    assert device.was_busy(0)
    assert not device.was_busy(1)


def test_drivers_in_two_languages_lose_no_idle_energy(handles, device):
    """Both integrate idle power, in turns: what they add up to is the power times the time that passed."""
    start_j, start_ns = device.energy_j(0), int(device.gpus[0]["idle_until_ns"])

    def read() -> None:
        for _ in range(300):
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[0])
            device.energy_j(0)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    energy_j, end_ns = device.energy_j(0), int(device.gpus[0]["idle_until_ns"])
    assert energy_j - start_j == pytest.approx(80.0 * (end_ns - start_ns) / 1e9, rel=1e-9)


def test_a_handle_of_an_earlier_session_is_an_error_and_no_crash(nvml_double, device):
    with nvml_double.patched(device.path):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlShutdown()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)


def test_a_change_that_outlasts_its_session_is_an_error_and_no_crash(nvml_double, device):
    """As when a driver takes so long that nobody waits any more."""
    answers = []

    def change(handle) -> None:
        try:
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, 210, 210)
        except pynvml.NVMLError as error:
            answers.append(error)

    device.gpus[0]["faults"] = Fault.SLOW
    for done in range(10):  # a busy machine may end the session so late that the change is done
        with nvml_double.patched(device.path):
            pynvml.nvmlInit()
            thread = threading.Thread(target=change, args=(pynvml.nvmlDeviceGetHandleByIndex(0),))
            thread.start()
            pynvml.nvmlShutdown()
            thread.join()
        if answers:
            assert [error.value for error in answers] == [pynvml.NVML_ERROR_UNINITIALIZED]
            assert device.gpus[0]["sets"] == done
            return
    pytest.fail("the change was done before the session ended in ten tries")
