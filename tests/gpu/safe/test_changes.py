"""SafeActuator: what it sets, what it saves itself, and what it refuses."""

import pytest

from throttllem_env.gpu import Caution, GpuEvent, SafeActuator, Steadiness, log_event, make_actuator
from throttllem_env.gpu.flapping import ClockMemory


def test_a_change_that_works_is_silent(opened, device, events, clock):
    safe = opened()
    assert safe.lock([0, 1], 1000).ok
    clock.now_s += 10
    assert [reading.sm_mhz for reading in safe.check()] == [990, 990, 1410]
    assert safe.locked_mhz(0) == 990
    assert safe.locked_mhz(2) is None
    assert events == []


def test_the_same_clock_again_costs_no_call(opened, device):
    safe = opened()
    for mhz in (990, 990, 985):
        assert safe.lock([0, 1], mhz).ok
    assert device.gpus["sets"].tolist() == [1, 1, 0]


def test_down_has_to_wait_and_up_does_not(opened, device, clock):
    safe = opened(steadiness=Steadiness(hold_s=1.0, min_step_mhz=0))
    safe.lock([0, 1], 990)
    clock.now_s += 0.5
    held = safe.lock([0, 1], 810)
    assert held.ok
    assert held.mhz == 990
    assert safe.lock([0, 1], 1410).mhz == 1410
    clock.now_s += 0.9
    assert safe.lock([0, 1], 810).mhz == 1410
    clock.now_s += 0.2
    assert safe.lock([0, 1], 810).mhz == 810
    assert device.gpus["sm_mhz"].tolist() == [810, 810, 1410]
    assert device.gpus["sets"].tolist() == [3, 3, 0]


def test_flapping_wishes_make_few_changes(opened, device, clock):
    safe = opened(steadiness=Steadiness(hold_s=1.0, min_step_mhz=0))
    for _ in range(100):  # ten seconds
        for mhz in (810, 1410):
            safe.lock([0], mhz)
            clock.now_s += 0.05
    assert device.gpus[0]["sets"] <= 2 * 10 + 1


def test_a_small_step_down_is_not_worth_a_change():
    memory = ClockMemory(Steadiness(0.0, 30))
    memory.remember(0, 990, 0.0)
    assert not memory.due([0], 975, 9.0)
    assert memory.due([0], 960, 9.0)
    assert memory.due([0], 1005, 9.0)


def test_gpus_that_were_locked_apart_are_brought_together():
    memory = ClockMemory(Steadiness(10.0, 30))
    memory.remember(0, 990, 0.0)
    assert memory.due([0, 1], 990, 0.0)
    memory.remember(1, 810, 0.0)
    assert memory.due([0, 1], 990, 0.0)


@pytest.mark.parametrize("settings", [{"hold_s": -1.0}, {"hold_s": float("nan")}, {"min_step_mhz": -1}])
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match=r"(hold_s|min_step_mhz) = "):
        Steadiness(**settings)


def test_a_wrong_clock_or_gpu_is_refused_before_anything_happens(opened, device):
    safe = opened()
    with pytest.raises(ValueError, match="the nearest is 1410"):
        safe.lock([0], 1500)
    with pytest.raises(RuntimeError, match="GPU 7"):
        safe.lock([0, 7], 810)
    assert safe.lock([], 810).ok
    assert device.gpus["sets"].sum() == 0


def test_a_dry_run_never_sets_nor_judges(nvml_double, device, events, clock, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with nvml_double.patched(device.path):
        inner = make_actuator("observe")
        with SafeActuator(inner, Caution(steadiness=Steadiness(0.0, 0)), events.append, clock=clock) as safe:
            assert not safe.writes
            device.lock_clocks(1, 810, 810)  # by somebody else
            assert safe.lock([0, 1], 990).ok
            for _ in range(20):
                clock.now_s += 1.0
                safe.check()
    assert events == []
    assert device.gpus["sets"].tolist() == [0, 1, 0]


def test_events_are_logged_by_default(caplog):
    log_event(GpuEvent(1.0, "safe-state", (0, 2), "top clock for 60 s"))
    assert "safe-state on GPU 0,2: top clock for 60 s" in caplog.text
