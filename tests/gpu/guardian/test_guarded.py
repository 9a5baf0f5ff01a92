"""No clock is locked unless a guardian knows of the GPU."""

import dataclasses
import os
import signal
import threading

import pytest

from throttllem_env.gpu import ActuatorError, Fault, GpuInfo, LockOutcome, Trouble
from throttllem_env.gpu.emulated import EmulatedActuator
from throttllem_env.gpu.guardian import GuardedActuator, Guardian, GuardianError, StateFolder, Ward
from throttllem_env.gpu.guardian.state import started_ticks
from throttllem_env.gpu.safe import SafeActuator


class Clocks:
    """An actuator on the file, which sees whether the journal has a GPU at the moment of a lock."""

    name, writes = "clocks", True

    def __init__(self, device, folder):
        self._device, self._folder = device, folder
        self.unguarded, self.closed = [], 0
        self.gpus = tuple(GpuInfo(gpu, f"GPU-{gpu}", "GPU", device.clocks_mhz) for gpu in range(2))

    def lock(self, gpus, mhz):
        state = StateFolder(self._folder)
        self.unguarded += [gpu for gpu in gpus if f"GPU-{gpu}" not in state.uuids()]
        state.close()
        for gpu in gpus:
            self._device.lock_clocks(gpu, mhz, mhz)
        return LockOutcome(mhz, dict.fromkeys(gpus, 0.0))

    def reset(self, gpus):
        for gpu in gpus:
            self._device.reset_clocks(gpu)
        return LockOutcome(None, dict.fromkeys(gpus, 0.0))

    def read(self, gpu):
        return gpu

    def close(self):
        self.closed += 1


@pytest.fixture
def clocks(device, folder):
    return Clocks(device, folder)


@pytest.fixture
def said():
    return []


@pytest.fixture
def guarded(clocks, settings, said):
    settings = dataclasses.replace(settings, claim_s=0.1)
    guarded = GuardedActuator(clocks, lambda: Guardian(settings, report=said.append), report=said.append)
    yield guarded
    guarded.close()


def locked(device) -> list[int]:
    return device.gpus["locked_max_mhz"].tolist()


def test_the_guardian_knows_of_every_gpu_before_its_first_lock(guarded, clocks, device):
    assert guarded.guardian_pid is None, "nothing to guard yet"
    assert guarded.lock([0], 810).ok
    assert guarded.lock([0, 1], 210).ok
    assert clocks.unguarded == []
    assert locked(device) == [210, 210]


def test_closing_restores_all_and_ends_the_guardian(guarded, clocks, device, folder):
    guarded.lock([0, 1], 210)
    pid = guarded.guardian_pid
    guarded.close()
    guarded.close()
    assert locked(device) == [0, 0]
    assert started_ticks(pid) is None
    assert clocks.closed == 1
    state = StateFolder(folder)
    assert state.uuids() == []
    state.close()
    with pytest.raises(ActuatorError, match="closed"):
        guarded.lock([0], 210)


def test_a_reset_keeps_the_gpu_in_care(guarded, device, folder):
    guarded.lock([0], 210)
    assert guarded.reset([0]).ok
    assert locked(device) == [0, 0]
    state = StateFolder(folder)
    assert state.uuids() == ["GPU-0"]
    state.close()


def test_a_dry_run_has_no_guardian(clocks, settings):
    clocks.writes = False
    guarded = GuardedActuator(clocks, lambda: pytest.fail("started a guardian"))
    guarded.lock([0], 210)
    guarded.close()


def test_without_a_guardian_nothing_is_locked(clocks, device):
    def refuse():
        raise GuardianError("no")

    guarded = GuardedActuator(clocks, refuse)
    outcome = guarded.lock([0, 1], 210)
    assert not outcome.ok
    assert [error.trouble for error in outcome.failed.values()] == [Trouble.UNAVAILABLE] * 2
    assert "no clock is locked without a guardian: no" in str(outcome.failed[0])
    assert device.gpus["sets"].tolist() == [0, 0]
    guarded.close()


def test_a_gpu_of_another_controller_is_not_locked(guarded, settings, device):
    with Guardian(settings) as other:
        other.intend([Ward("GPU-1", 1)])
        outcome = guarded.lock([0, 1], 210)
        assert outcome.failed.keys() == {0, 1}
        assert "controlled by another process" in str(outcome.failed[1])
        assert locked(device) == [0, 0]
        guarded.lock([0], 210)


def test_an_unknown_gpu_is_refused(guarded):
    with pytest.raises(ActuatorError, match="not opened for GPU 5"):
        guarded.lock([0, 5], 210)


def test_when_the_guardian_dies_all_clocks_are_restored_and_another_takes_over(
    guarded, clocks, device, wait_for, said
):
    lapses = []
    guarded.on_lapse = lambda: lapses.append(1)
    guarded.lock([0, 1], 210)
    first = guarded.guardian_pid
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: lapses, "the clocks to be restored")
    assert locked(device) == [0, 0]
    assert "the guardian was lost: restored the clocks of GPUs [0, 1] here" in said
    guarded.lock([0, 1], 810)
    assert guarded.guardian_pid not in (None, first)
    assert clocks.unguarded == []
    assert locked(device) == [810, 810]


def test_when_guardians_keep_dying_nothing_is_locked_any_more(guarded, device, wait_for):
    for _ in range(4):
        guarded.lock([0], 210)
        os.kill(guarded.guardian_pid, signal.SIGKILL)
        wait_for(lambda: guarded.guardian_pid is None, "its loss to be noticed")
    assert "4 guardians were lost" in str(guarded.lock([0], 210).failed[0])
    assert locked(device) == [0, 0]


def test_a_guardian_that_dies_as_the_controller_closes_is_replaced_by_the_controller(guarded, device, folder):
    guarded.lock([0, 1], 210)
    os.kill(guarded.guardian_pid, signal.SIGKILL)
    guarded.close()
    assert locked(device) == [0, 0]
    state = StateFolder(folder)
    assert state.uuids() == []
    state.close()


def test_what_cannot_be_restored_without_a_guardian_stays_in_the_journal(
    guarded, clocks, folder, wait_for, said
):
    def refuse(gpus):
        raise ActuatorError(Trouble.UNKNOWN, "no")

    guarded.lock([0], 210)
    clocks.reset = refuse
    os.kill(guarded.guardian_pid, signal.SIGKILL)
    wait_for(lambda: any("cannot be restored: no" in line for line in said), "the failure to be told")
    state = StateFolder(folder)
    assert state.uuids() == ["GPU-0"]
    state.close()
    del clocks.reset


def test_locks_from_many_threads_are_all_guarded(guarded, clocks, device):
    threads = [
        threading.Thread(target=lambda gpu=gpu: [guarded.lock([gpu], mhz) for mhz in (210, 810)])
        for gpu in (0, 1, 0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clocks.unguarded == []
    assert locked(device) == [810, 810]


def test_a_failed_restore_at_the_end_is_left_to_the_guardian(guarded, device, wait_for, said):
    guarded.lock([0, 1], 210)
    pid = guarded.guardian_pid
    device.gpus[1]["faults"] = Fault.LOST
    guarded.close()
    assert locked(device) == [0, 210]
    assert any(f"the guardian (pid {pid}) goes on trying" in line for line in said)
    device.gpus[1]["faults"] = 0
    wait_for(lambda: started_ticks(pid) is None, "the guardian's end")
    assert locked(device) == [0, 0]


def test_a_guardian_that_could_not_start_is_tried_again(clocks, settings, device):
    starts = []

    def start():
        starts.append(1)
        if len(starts) < 8:
            raise GuardianError("not yet")
        return Guardian(settings)

    guarded = GuardedActuator(clocks, start)
    assert not any(guarded.lock([0], 210).ok for _ in range(7))
    assert guarded.lock([0], 210).ok
    guarded.close()
    assert locked(device) == [0, 0]


def test_a_safe_actuator_around_it_goes_to_the_safe_state_without_a_guardian(device):
    def refuse():
        raise GuardianError("no")

    told = []
    guarded = GuardedActuator(EmulatedActuator(device.path), refuse)
    safe = SafeActuator(guarded, on_event=told.append)
    assert not safe.lock([0, 1], 210).ok
    assert safe.in_safe_state(0)
    assert any("without a guardian" in str(event) for event in told)
    assert locked(device) == [0, 0]
    safe.close()


def test_a_gpu_whose_driver_refused_every_lock_is_let_go_of(device, settings, folder):
    """Its reset would be refused, too, and there is nothing to reset."""
    device.gpus[1]["faults"] = Fault.NO_PERMISSION
    guarded = GuardedActuator(EmulatedActuator(device.path), lambda: Guardian(settings))
    assert guarded.lock([0, 1], 210).failed.keys() == {1}
    pid = guarded.guardian_pid
    guarded.close()
    assert started_ticks(pid) is None
    assert locked(device) == [0, 0]
    state = StateFolder(folder)
    assert state.uuids() == []
    state.close()
