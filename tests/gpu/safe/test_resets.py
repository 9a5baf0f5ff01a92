"""SafeActuator: what it has locked it gives back, and says so where that fails."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.gpu import (
    ActuatorError,
    Caution,
    Fault,
    LockOutcome,
    SafeActuator,
    Steadiness,
    Trouble,
    make_actuator,
)


def test_a_gpu_whose_change_timed_out_is_reset_in_the_end(device, clock, events, monkeypatch):
    """The driver may carry out later what it did not answer in time."""
    inner = make_actuator("emulated", device_file=device.path)
    lock = inner.lock

    def late(*_: Any) -> LockOutcome:
        return LockOutcome(None, {}, {0: ActuatorError(Trouble.TIMEOUT, "no answer", 0)})

    monkeypatch.setattr(inner, "lock", late)
    monkeypatch.setattr(inner, "reset", late)
    safe = SafeActuator(inner, Caution(), events.append, clock=clock)
    assert not safe.lock([0], 810).ok
    assert events.kinds == ["lock-failed", "safe-state-failed"]
    lock([0], 810)
    monkeypatch.undo()
    safe.close()
    assert device.gpus[0]["sm_mhz"] == 1410


def test_a_gpu_that_was_never_ours_is_not_reset_in_the_end(opened, device, events):
    safe = opened()
    device.gpus[0]["faults"] = Fault.NO_PERMISSION
    safe.lock([0], 810)
    device.gpus[0]["faults"] = 0
    before = int(device.gpus[0]["resets"])
    safe.close()
    assert device.gpus[0]["resets"] == before


def test_closing_resets_what_we_locked_and_nothing_else(opened, device):
    device.lock_clocks(2, 810, 810)  # by somebody else
    with opened() as safe:
        safe.lock([0, 1], 810)
    assert device.gpus["sm_mhz"].tolist() == [1410, 1410, 810]
    assert device.gpus["resets"].tolist() == [1, 1, 0]
    safe.close()
    assert device.gpus["resets"].tolist() == [1, 1, 0]


def test_a_reset_that_fails_is_reported(opened, device, events):
    safe = opened()
    safe.lock([0], 810)
    device.gpus[0]["faults"] = Fault.NO_PERMISSION
    assert not safe.reset([0]).ok
    assert events.kinds == ["reset-failed"]
    assert safe.locked_mhz(0) == 810
    device.gpus[0]["faults"] = 0
    assert safe.reset([0]).ok
    assert safe.locked_mhz(0) is None


def test_a_reset_that_silently_does_nothing_is_made_again(opened, device, events, clock):
    safe = opened()
    safe.lock([0], 810)
    device.gpus[0]["faults"] = Fault.SILENT
    assert safe.reset([0]).ok
    clock.now_s += 1.0
    safe.check()
    assert events.kinds == ["reset-failed"]
    assert events[0].trouble is Trouble.DID_NOT_TAKE
    device.gpus[0]["faults"] = 0
    safe.check()
    assert device.gpus[0]["sm_mhz"] == 1410


def test_a_reset_that_does_nothing_to_the_end_is_reported(opened, device, events):
    safe = opened()
    safe.lock([0], 810)
    device.gpus[0]["faults"] = Fault.SILENT
    safe.close()
    assert events.kinds == ["reset-failed"]
    assert device.gpus[0]["sm_mhz"] == 810
    device.gpus[0]["faults"] = 0


FAULTS = st.sampled_from([Fault(0), Fault.NO_PERMISSION, Fault.LOST, Fault.NOT_SUPPORTED, Fault.SILENT])
STEPS = st.one_of(
    st.tuples(st.just("lock"), st.sets(st.integers(0, 2), min_size=1), st.integers(210, 1410)),
    st.tuples(st.just("fault"), st.integers(0, 2), FAULTS),
    st.tuples(st.just("check"), st.floats(0, 100), st.none()),
    st.tuples(st.just("reset"), st.sets(st.integers(0, 2), min_size=1), st.none()),
)


@settings(max_examples=50)
@given(st.lists(STEPS, max_size=40))
def test_whatever_goes_wrong_no_gpu_is_left_locked(make_device, make_clock, steps):
    """Once the faults are over, closing gives every GPU its normal clock back."""
    clock = make_clock()
    with tempfile.TemporaryDirectory() as folder:
        device = make_device(Path(folder))
        inner = make_actuator("emulated", device_file=device.path)
        caution = Caution(steadiness=Steadiness(0.0, 0))
        safe = SafeActuator(inner, caution, lambda event: None, clock=clock, sleep=clock.sleep)
        for step, what, how in steps:
            if step == "lock":
                outcome = safe.lock(sorted(what), how)
                assert set(outcome.failed) <= what
            elif step == "fault":
                device.gpus[what]["faults"] = how
            elif step == "check":
                clock.now_s += what
                safe.check()
            else:
                safe.reset(sorted(what))
        device.gpus["faults"] = 0
        safe.close()
        assert device.gpus["sm_mhz"].tolist() == [1410] * 3
        assert device.gpus["locked_max_mhz"].tolist() == [0] * 3
        device.close()
