"""SafeActuator: a change that did not take is seen by the clock under load, and by nothing else."""

from typing import Any

import pytest

from throttllem_env.gpu import Fault, SafeActuator, Trouble


def run_until_safe(safe: SafeActuator, clock: Any, gpu: int) -> int:
    """Check every second; how many checks it took."""
    for count in range(1, 50):
        clock.now_s += 1.0
        safe.check()
        if safe.in_safe_state(gpu):
            return count
    pytest.fail("never went to the safe state")


@pytest.mark.parametrize("earlier_mhz", [None, 810, 1200])
def test_a_silent_set_is_found_out_by_read_back(opened, device, events, clock, earlier_mhz):
    """Also where the clock that stands is another one of ours, above or below."""
    safe = opened()
    if earlier_mhz:
        safe.lock([0, 1], earlier_mhz)
    device.gpus[1]["faults"] = Fault.SILENT
    assert safe.lock([0, 1], 990).ok
    checks = run_until_safe(safe, clock, 1)
    assert events.kinds[:2] == ["did-not-take", "safe-state"]
    assert events[0].trouble is Trouble.DID_NOT_TAKE
    assert f"GPU 1 runs at {earlier_mhz or 1410} MHz under load, locked to 990" in events[0].message
    assert checks == 6  # two readings in a row, three times: the set and two more tries
    assert safe.in_safe_state(0), "it was locked together with GPU 1"
    assert device.gpus[0]["sm_mhz"] == 1410
    device.gpus[1]["faults"] = 0


def test_a_silent_set_that_comes_to_its_senses_is_mended(opened, device, events, clock):
    safe = opened()
    device.gpus[0]["faults"] = Fault.SILENT
    safe.lock([0], 990)
    device.gpus[0]["faults"] = 0
    for _ in range(5):
        clock.now_s += 1.0
        safe.check()
    assert device.gpus[0]["sm_mhz"] == 990
    assert events == []


def test_a_gpu_on_which_nothing_takes_is_reset_and_left_alone(opened, device, events, clock):
    safe = opened(quiet_s=60.0)
    safe.lock([0], 810)
    device.gpus[0]["faults"] = Fault.SILENT
    safe.lock([0], 990)
    for _ in range(40):
        clock.now_s += 1.0
        safe.check()
    assert events.kinds == [
        "did-not-take",
        "safe-state",
        "did-not-take",
        "safe-state-failed",
        "reset-failed",
    ]
    assert safe.locked_mhz(0) is None
    device.gpus[0]["faults"] = 0


@pytest.mark.parametrize("reason", [0x4, 0x8, 0x20, 0x40, 0x80])
def test_a_clock_that_has_a_reason_says_nothing(opened, device, events, clock, reason):
    safe = opened()
    device.gpus[0]["faults"] = Fault.SILENT
    safe.lock([0], 990)
    device.gpus[0]["reasons"] = reason
    for _ in range(20):
        clock.now_s += 1.0
        safe.check()
    assert events == []
    assert not safe.in_safe_state(0)
    device.gpus[0]["faults"] = 0


def test_an_idle_gpu_says_nothing(opened, device, events, clock):
    device.gpus["busy_until_ns"] = 0
    safe = opened()
    device.gpus[0]["faults"] = Fault.SILENT
    safe.lock([0], 990)
    for _ in range(20):
        clock.now_s += 1.0
        safe.check()
    assert events == []
    device.gpus["busy_until_ns"] = 2**62
    run_until_safe(safe, clock, 0)
    device.gpus[0]["faults"] = 0


def test_a_change_gets_time_to_settle(opened, device, events, clock):
    safe = opened(settle_s=5.0, strikes=1, retries=0)
    device.gpus[0]["faults"] = Fault.SILENT
    safe.lock([0], 990)
    clock.now_s += 4.9
    safe.check()
    assert events == []
    clock.now_s += 0.2
    safe.check()
    assert events.kinds[0] == "did-not-take"
    device.gpus[0]["faults"] = 0


def test_a_slow_set_is_no_failure(opened, device, events):
    safe = opened()
    device.gpus[0]["faults"] = Fault.SLOW
    outcome = safe.lock([0, 1], 810)
    assert outcome.ok
    assert outcome.took_s[0] >= 0.2
    assert events == []


def test_a_lost_gpu_is_told_of_once_and_welcomed_back(opened, device, events, clock):
    safe = opened()
    device.gpus[1]["faults"] = Fault.LOST
    for _ in range(3):
        assert [reading.gpu for reading in safe.check()] == [0, 2]
    device.gpus[1]["faults"] = 0
    assert len(safe.check()) == 3
    assert events.kinds == ["gpu-unreadable", "gpu-readable"]
    assert events[0].trouble is Trouble.LOST
