"""SafeActuator: locks of somebody else are respected, unless it is forced."""

import pytest

from throttllem_env.gpu import Trouble


def test_a_lock_of_somebody_else_is_respected(opened, device, events):
    safe = opened()
    device.lock_clocks(1, 810, 810)  # by somebody else
    outcome = safe.lock([0, 1], 990)
    assert list(outcome.failed) == [1]
    assert outcome.failed[1].trouble is Trouble.FOREIGN_LOCK
    assert device.gpus["sm_mhz"].tolist() == [1410, 810, 1410]
    assert not safe.lock([0, 1], 990).ok
    assert events.kinds == ["foreign-lock"], "told once"
    assert "--force" in events[0].message
    safe.close()
    assert device.gpus[1]["sm_mhz"] == 810
    assert device.gpus["resets"].sum() == 0


def test_a_lock_of_somebody_else_may_end(opened, device, events, clock):
    safe = opened(quiet_s=60.0)
    device.lock_clocks(1, 810, 810)  # by somebody else
    safe.lock([1], 990)
    device.reset_clocks(1)
    clock.now_s += 61
    assert safe.lock([1], 990).ok
    assert device.gpus[1]["sm_mhz"] == 990


def test_a_lock_of_somebody_else_yields_to_force(opened, device, events):
    safe = opened(force=True)
    device.lock_clocks(1, 810, 810)  # by somebody else
    assert safe.lock([0, 1], 990).ok
    assert safe.lock([0, 1], 810).ok
    assert events.kinds == ["foreign-lock-overridden"]


@pytest.mark.parametrize("field", [("busy_until_ns", 0), ("reasons", 0x4)])
def test_a_low_clock_with_a_reason_is_nobodys_lock(opened, device, events, field):
    device.gpus[field[0]] = field[1]
    safe = opened()
    device.lock_clocks(0, 810, 810)  # by somebody else
    assert safe.lock([0], 990).ok
    assert events == []


def test_the_operators_own_setting_is_nobody_elses_lock(opened, device, events):
    safe = opened(restore_mhz=(210, 1200))
    device.lock_clocks(0, 210, 1200)
    assert safe.lock([0], 990).ok
    assert events == []
