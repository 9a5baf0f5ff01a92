"""SafeActuator: where a GPU fails, its companions go to the top clock for a quiet time."""

import pytest

from throttllem_env.gpu import Fault, Trouble


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [
        (Fault.LOST, Trouble.LOST),
        (Fault.NO_PERMISSION, Trouble.NO_PERMISSION),
        (Fault.NOT_SUPPORTED, Trouble.NOT_SUPPORTED),
    ],
)
def test_when_one_gpu_fails_the_others_go_to_the_top(opened, device, events, fault, trouble):
    safe = opened()
    safe.lock([0, 1], 990)
    device.gpus[1]["faults"] = fault
    outcome = safe.lock([0, 1], 810)
    assert not outcome.ok
    assert outcome.failed[1].trouble is trouble
    assert device.gpus[0]["sm_mhz"] == 1410
    assert events.kinds == ["lock-failed", "safe-state", "safe-state-failed"]
    assert (events[0].gpus, events[1].gpus, events[2].gpus) == ((1,), (0,), (1,))
    assert events[0].trouble is trouble
    assert safe.in_safe_state(0)
    device.gpus[1]["faults"] = 0


def test_the_safe_state_lasts_for_the_quiet_time(opened, device, events, clock):
    safe = opened(quiet_s=60.0)
    device.gpus[0]["faults"] = Fault.NO_PERMISSION
    safe.lock([0], 810)
    device.gpus[0]["faults"] = 0
    clock.now_s += 59
    outcome = safe.lock([0], 810)
    assert outcome.failed[0].trouble is Trouble.DID_NOT_TAKE
    assert outcome.mhz == 1410
    assert device.gpus[0]["sm_mhz"] == 1410
    clock.now_s += 2
    assert safe.lock([0], 810).ok
    assert events.kinds[-1] == "safe-state-over"
    assert device.gpus[0]["sm_mhz"] == 810


def test_the_top_clock_may_be_asked_for_in_the_safe_state(opened, device, events):
    safe = opened()
    device.gpus[1]["faults"] = Fault.LOST
    safe.lock([0, 1], 810)
    assert safe.lock([0], 1410).ok
    assert not safe.lock([0, 1], 1410).ok, "GPU 1 is lost"
    device.gpus[1]["faults"] = 0
