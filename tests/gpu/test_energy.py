"""Energy is counted once, whatever the counter does."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throttllem_env.gpu import ActuatorError, DeviceFile, Fault, GpuInfo, GpuReading, Trouble, make_actuator
from throttllem_env.gpu.energy import (
    WRAP_J,
    EnergyMeter,
    WindowTooShortError,
    joules_per,
    measure_update_period_s,
)

INFO = GpuInfo(0, "GPU-0", "T", (210, 1410), power_limit_w=400.0)
OTHER = GpuInfo(1, "GPU-1", "T", (210, 1410), power_limit_w=400.0)


def reading(time_s: float, energy_j: float | None, power_w: float = 100.0, gpu: int = 0) -> GpuReading:
    return GpuReading(gpu, time_s, 1410, power_w, energy_j)


def metered(readings: list[GpuReading], **settings: Any) -> tuple[float, float, list[str]]:
    """Energy and estimated time of GPU 0 over some readings, and what was told."""
    events: list[Any] = []
    meter = EnergyMeter([INFO], no_read, on_event=events.append, **settings)
    meter.add(readings[:1])
    mark = meter.mark()
    meter.add(readings[1:])
    energy = meter.since(mark)
    return energy.total_j, energy.estimated_s[0], [event.kind for event in events]


def no_read(gpu: int) -> GpuReading:
    raise ActuatorError(Trouble.LOST, "nobody reads here", gpu)


def test_the_counter_rules_where_there_is_one():
    assert metered([reading(0, 1000.0, 90.0), reading(1, 1070.0, 999.0)]) == (70.0, 0.0, [])


def test_power_is_integrated_where_there_is_none():
    samples = [reading(0, None, 100.0), reading(1, None, 200.0), reading(1.5, None, 200.0)]
    assert metered(samples) == (250.0, 0.0, [])


def test_power_samples_too_far_apart_are_an_estimate():
    assert metered([reading(0, None), reading(3, None)]) == (300.0, 3.0, ["energy-estimated"])


def test_a_counter_over_long_gaps_is_no_estimate():
    assert metered([reading(0, 0.0), reading(3600, 400_000.0)]) == (400_000.0, 0.0, [])


def test_a_wrap_at_32_bits_loses_nothing():
    total_j, estimated_s, kinds = metered([reading(0, WRAP_J - 30.0), reading(1, 40.0)])
    assert total_j == pytest.approx(70.0)
    assert (estimated_s, kinds) == (0.0, ["counter-wrapped"])


def test_a_counter_that_begins_anew_is_bridged_with_power():
    readings = [reading(0, 5000.0, 100.0), reading(2, 3.0, 120.0), reading(3, 113.0, 110.0)]
    assert metered(readings) == (220.0 + 110.0, 2.0, ["counter-restarted"])


def test_a_counter_that_leaps_is_not_believed():
    assert metered([reading(0, 0.0), reading(1, 1e6), reading(2, 1e6 + 90)]) == (
        190.0,
        1.0,
        ["counter-restarted"],
    )


def test_a_late_renewal_is_no_leap():
    """A counter with a period of 100 ms shows ten times the power between two reads 10 ms apart."""
    assert metered([reading(0, 0.0), reading(0.1, 0.0), reading(0.11, 40.0)]) == (40.0, 0.0, [])


def test_windows_shorter_than_the_update_period_are_refused():
    meter = EnergyMeter([INFO], no_read, period_s=0.1)
    meter.add([reading(0, 0.0)])
    mark = meter.mark()
    with pytest.raises(WindowTooShortError):
        meter.since(mark)
    meter.add([reading(0.05, 9.0)])
    with pytest.raises(WindowTooShortError, match=r"0\.050 s says nothing.*every 0\.100 s") as raised:
        meter.since(mark)
    assert raised.value.shortest_s == 0.1
    meter.add([reading(0.1, 9.0)])
    assert meter.since(mark).total_j == 9.0


def test_a_gpu_that_cannot_be_read_is_caught_up_on():
    seen = iter([reading(0, 0.0), None, reading(2, 150.0)])

    def read(gpu: int) -> GpuReading:
        return next(seen) or no_read(gpu)

    meter = EnergyMeter([INFO], read)
    mark = meter.mark()
    meter.sample()
    meter.sample()
    energy = meter.since(mark)
    assert (energy.total_j, energy.estimated_s[0]) == (150.0, 0.0)


def test_old_and_foreign_readings_are_ignored():
    meter = EnergyMeter([INFO], no_read)
    meter.add([reading(1, 100.0)])
    mark = meter.mark()
    meter.add([reading(0.5, 90.0), reading(1, 100.0), reading(2, 500.0, gpu=7), reading(2, 180.0)])
    assert meter.since(mark).energy_j == {0: 80.0}


def test_instances_are_charged_for_their_gpus_while_they_have_them():
    clock = [0.0]

    def read(gpu: int) -> GpuReading:  # GPU 0 draws 100 W, GPU 1 50 W
        return reading(clock[0], clock[0] * (100.0, 50.0)[gpu], gpu=gpu)

    meter = EnergyMeter([INFO, OTHER], read)
    meter.assign([0], "a")
    clock[0] = 1.0
    meter.assign([0, 1], "b")
    clock[0] = 3.0
    meter.assign([0], None)
    clock[0] = 4.0
    meter.sample()
    assert meter.owned_j() == {"a": 100.0, "b": 200.0 + 150.0, None: 50.0 + 100.0}


@given(
    st.lists(
        st.tuples(st.floats(0.01, 50), st.floats(0, 400), st.sampled_from([None, "a", "b"])),
        min_size=1,
        max_size=30,
    )
)
def test_what_is_charged_is_what_was_drawn(steps):
    time_s, energy_j = [0.0], [0.0]
    meter = EnergyMeter([INFO], lambda gpu: reading(time_s[0], energy_j[0]), period_s=0.0)
    mark = meter.mark()
    for elapsed_s, power_w, owner in steps:
        meter.assign([0], owner)
        time_s[0] += elapsed_s
        energy_j[0] += elapsed_s * power_w
        meter.sample()
    assert meter.since(mark).total_j == pytest.approx(energy_j[0])
    assert sum(meter.owned_j().values()) == pytest.approx(energy_j[0])


def test_energy_per_token_and_request():
    meter = EnergyMeter([INFO], no_read)
    meter.add([reading(0, 0.0)])
    mark = meter.mark()
    meter.add([reading(2, 120.0)])
    energy = meter.since(mark)
    assert energy.per_token_j(60) == 2.0
    assert energy.per_request_j(3) == 40.0
    assert energy.per_token_j(0) is None
    assert joules_per(1.0, 0) is None


def test_the_update_period_is_measured():
    now = [0.0]

    def sleep(duration_s: float) -> None:
        now[0] += duration_s

    period_s = measure_update_period_s(lambda: float(int(now[0] / 0.1)), clock=lambda: now[0], sleep=sleep)
    assert period_s == pytest.approx(0.1, abs=0.0021)


@pytest.mark.parametrize("counter", [None, 5.0])
def test_a_counter_that_is_missing_or_stands_still_has_no_period(counter):
    now = [0.0]

    def sleep(duration_s: float) -> None:
        now[0] += duration_s

    assert measure_update_period_s(lambda: counter, clock=lambda: now[0], sleep=sleep) is None


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", {210: 50.0, 1410: 80.0}, 2, set_delay_s=0.0)
    yield device
    device.close()


@pytest.fixture(params=["nvml", "emulated"])
def actuator(request, nvml_double: Any, device: DeviceFile, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with nvml_double.patched(device.path):
        path = device.path if request.param == "emulated" else None
        actuator = make_actuator(request.param, device_file=path)
        yield actuator
        actuator.close()


def test_what_the_driver_shows_is_what_the_engine_booked(actuator, device):
    """Busy and idle joules, through the driver, lie between the file's own sums just before and after."""
    meter = EnergyMeter(actuator.gpus, actuator.read, period_s=0.0)
    earliest_j = device.energy_j(0)
    mark = meter.mark()
    latest_j = device.energy_j(0)
    for _ in range(20):
        device.book_iteration(0, 25.0, 0, 1e-6)
        meter.sample()
    before_j = device.energy_j(0)
    meter.sample()
    after_j = device.energy_j(0)
    measured_j = meter.since(mark).energy_j[0]
    assert before_j - latest_j - 0.002 <= measured_j <= after_j - earliest_j + 0.002
    assert measured_j >= 499.0


def test_idle_energy_is_counted_at_the_power_of_the_clock(actuator, device):
    actuator.lock([0], 210)
    meter = EnergyMeter(actuator.gpus, actuator.read, period_s=0.0)
    device.energy_j(0)
    earliest_ns = int(device.gpus[0]["idle_until_ns"])
    mark = meter.mark()
    latest_ns = int(device.gpus[0]["idle_until_ns"])
    while int(device.gpus[0]["idle_until_ns"]) < earliest_ns + 200_000_000:
        meter.sample()
    energy = meter.since(mark)
    longest_s = (int(device.gpus[0]["idle_until_ns"]) - earliest_ns) / 1e9
    shortest_s = longest_s - (latest_ns - earliest_ns) / 1e9
    assert 50.0 * shortest_s - 0.002 <= energy.energy_j[0] <= 50.0 * longest_s + 0.002
    assert energy.estimated_s[0] == 0.0


def test_a_wrap_in_the_driver_loses_nothing(actuator, device):
    events: list[Any] = []
    device.gpus[0]["counter_wrap_mj"] = 2**32
    while True:  # a machine that stands still for a second has the idle power wrap it before the mark
        used_mj = int(device.energy_j(0) * 1e3)
        device.gpus[0]["counter_base_mj"] = 2**32 - 60_000 - used_mj
        meter = EnergyMeter(actuator.gpus, actuator.read, period_s=0.0, on_event=events.append)
        mark = meter.mark()
        if device.energy_j(0) * 1e3 < used_mj + 60_000:
            break
        events.clear()
    for _ in range(4):
        device.book_iteration(0, 25.0, 0, 1e-6)
        meter.sample()
    assert [event.kind for event in events] == ["counter-wrapped"]
    energy = meter.since(mark)
    assert energy.energy_j[0] >= 99.9
    assert energy.estimated_s[0] == 0.0


def test_a_restarted_counter_in_the_driver_is_bridged(actuator, device):
    events: list[Any] = []
    meter = EnergyMeter(actuator.gpus, actuator.read, period_s=0.0, on_event=events.append)
    device.gpus[0]["counter_base_mj"] = 10**9
    mark = meter.mark()
    device.gpus[0]["counter_base_mj"] = 0
    meter.sample()
    energy = meter.since(mark)
    assert [event.kind for event in events] == ["counter-restarted"]
    assert energy.energy_j[0] == pytest.approx(80.0 * energy.duration_s[0])


def test_without_a_counter_power_is_integrated(nvml_double, device, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device.gpus["faults"] = Fault.NO_COUNTER
    with nvml_double.patched(device.path):
        actuator = make_actuator("nvml")
        meter = EnergyMeter(actuator.gpus, actuator.read, period_s=0.0, max_gap_s=60.0)
        mark = meter.mark()
        for _ in range(5):
            meter.sample()
        energy = meter.since(mark)
        actuator.close()
    assert energy.energy_j[1] == pytest.approx(80.0 * energy.duration_s[1])


def test_the_drivers_update_period_is_measured(actuator, device):
    device.gpus[0]["counter_period_us"] = 20_000
    period_s = measure_update_period_s(lambda: actuator.read(0).energy_j, timeout_s=60.0)
    assert period_s is not None
    assert period_s >= 0.01
