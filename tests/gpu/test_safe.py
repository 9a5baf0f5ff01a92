"""SafeActuator: what fails is seen, tried again, reported, and ends at the top clock."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throttllem_env.gpu import (
    ActuatorError,
    Caution,
    DeviceFile,
    Fault,
    GpuEvent,
    LockOutcome,
    SafeActuator,
    Steadiness,
    Trouble,
    log_event,
    make_actuator,
)
from throttllem_env.gpu.flapping import ClockMemory

IDLE_W = {210: 50.0, 810: 60.0, 990: 65.0, 1200: 70.0, 1410: 80.0}
BUSY_NS = 2**62
EAGER = Steadiness(0.0, 0)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, 3, set_delay_s=0.0)
    device.gpus["busy_w"], device.gpus["busy_until_ns"] = 300.0, BUSY_NS
    yield device
    device.close()


@pytest.fixture
def events():
    return []


@pytest.fixture(params=["nvml", "emulated"])
def opened(request, nvml_double: Any, device: DeviceFile, events, clock, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = []

    def build(**caution: Any) -> SafeActuator:
        path = device.path if request.param == "emulated" else None
        inner = make_actuator(request.param, device_file=path)
        settings = Caution(**({"steadiness": EAGER} | caution))
        made.append(SafeActuator(inner, settings, events.append, clock=clock, sleep=clock.sleep))
        return made[-1]

    with nvml_double.patched(device.path):
        yield build
        for safe in made:
            safe.close()


def kinds(events: list[GpuEvent]) -> list[str]:
    return [event.kind for event in events]


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
    assert kinds(events) == ["lock-failed", "safe-state", "safe-state-failed"]
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
    assert kinds(events)[-1] == "safe-state-over"
    assert device.gpus[0]["sm_mhz"] == 810


def test_the_top_clock_may_be_asked_for_in_the_safe_state(opened, device, events):
    safe = opened()
    device.gpus[1]["faults"] = Fault.LOST
    safe.lock([0, 1], 810)
    assert safe.lock([0], 1410).ok
    assert not safe.lock([0, 1], 1410).ok, "GPU 1 is lost"
    device.gpus[1]["faults"] = 0


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
    assert kinds(events) == ["lock-failed", "safe-state-failed"]
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


def run_until_safe(safe: SafeActuator, clock: Clock, gpu: int) -> int:
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
    assert kinds(events)[:2] == ["did-not-take", "safe-state"]
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
    assert kinds(events) == [
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
    device.gpus["busy_until_ns"] = BUSY_NS
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
    assert kinds(events)[0] == "did-not-take"
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
    assert kinds(events) == ["gpu-unreadable", "gpu-readable"]
    assert events[0].trouble is Trouble.LOST


def locked_by_somebody(device: DeviceFile, gpu: int, mhz: int) -> None:
    device.lock_clocks(gpu, mhz, mhz)


def test_a_lock_of_somebody_else_is_respected(opened, device, events):
    safe = opened()
    locked_by_somebody(device, 1, 810)
    outcome = safe.lock([0, 1], 990)
    assert list(outcome.failed) == [1]
    assert outcome.failed[1].trouble is Trouble.FOREIGN_LOCK
    assert device.gpus["sm_mhz"].tolist() == [1410, 810, 1410]
    assert not safe.lock([0, 1], 990).ok
    assert kinds(events) == ["foreign-lock"], "told once"
    assert "--force" in events[0].message
    safe.close()
    assert device.gpus[1]["sm_mhz"] == 810
    assert device.gpus["resets"].sum() == 0


def test_a_lock_of_somebody_else_may_end(opened, device, events, clock):
    safe = opened(quiet_s=60.0)
    locked_by_somebody(device, 1, 810)
    safe.lock([1], 990)
    device.reset_clocks(1)
    clock.now_s += 61
    assert safe.lock([1], 990).ok
    assert device.gpus[1]["sm_mhz"] == 990


def test_a_lock_of_somebody_else_yields_to_force(opened, device, events):
    safe = opened(force=True)
    locked_by_somebody(device, 1, 810)
    assert safe.lock([0, 1], 990).ok
    assert safe.lock([0, 1], 810).ok
    assert kinds(events) == ["foreign-lock-overridden"]


@pytest.mark.parametrize("field", [("busy_until_ns", 0), ("reasons", 0x4)])
def test_a_low_clock_with_a_reason_is_nobodys_lock(opened, device, events, field):
    device.gpus[field[0]] = field[1]
    safe = opened()
    locked_by_somebody(device, 0, 810)
    assert safe.lock([0], 990).ok
    assert events == []


def test_the_operators_own_setting_is_nobody_elses_lock(opened, device, events):
    safe = opened(restore_mhz=(210, 1200))
    device.lock_clocks(0, 210, 1200)
    assert safe.lock([0], 990).ok
    assert events == []


def test_closing_resets_what_we_locked_and_nothing_else(opened, device):
    locked_by_somebody(device, 2, 810)
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
    assert kinds(events) == ["reset-failed"]
    assert safe.locked_mhz(0) == 810
    device.gpus[0]["faults"] = 0
    assert safe.reset([0]).ok
    assert safe.locked_mhz(0) is None


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
        with SafeActuator(inner, Caution(steadiness=EAGER), events.append, clock=clock) as safe:
            assert not safe.writes
            locked_by_somebody(device, 1, 810)
            assert safe.lock([0, 1], 990).ok
            for _ in range(20):
                clock.now_s += 1.0
                safe.check()
    assert events == []
    assert device.gpus["sets"].tolist() == [0, 1, 0]


def test_events_are_logged_by_default(caplog):
    log_event(GpuEvent(1.0, "safe-state", (0, 2), "top clock for 60 s"))
    assert "safe-state on GPU 0,2: top clock for 60 s" in caplog.text


def test_a_reset_that_silently_does_nothing_is_made_again(opened, device, events, clock):
    safe = opened()
    safe.lock([0], 810)
    device.gpus[0]["faults"] = Fault.SILENT
    assert safe.reset([0]).ok
    clock.now_s += 1.0
    safe.check()
    assert kinds(events) == ["reset-failed"]
    assert events[0].trouble is Trouble.DID_NOT_TAKE
    device.gpus[0]["faults"] = 0
    safe.check()
    assert device.gpus[0]["sm_mhz"] == 1410


def test_a_reset_that_does_nothing_to_the_end_is_reported(opened, device, events):
    safe = opened()
    safe.lock([0], 810)
    device.gpus[0]["faults"] = Fault.SILENT
    safe.close()
    assert kinds(events) == ["reset-failed"]
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
def test_whatever_goes_wrong_no_gpu_is_left_locked(steps):
    """Once the faults are over, closing gives every GPU its normal clock back."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        device = DeviceFile.create(Path(folder) / "gpus", IDLE_W, 3, set_delay_s=0.0)
        device.gpus["busy_until_ns"] = BUSY_NS
        inner = make_actuator("emulated", device_file=device.path)
        caution = Caution(steadiness=EAGER)
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
