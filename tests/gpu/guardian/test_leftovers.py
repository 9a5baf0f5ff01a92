"""GPUs whose controller and guardian were both killed are found and given back."""

import os
import signal

import pytest

from throttllem_env.gpu import Fault
from throttllem_env.gpu.guardian import Guardian, StateFolder, leftovers
from throttllem_env.gpu.guardian.state import started_ticks


@pytest.fixture
def state(folder):
    state = StateFolder(folder)
    yield state
    state.close()


@pytest.fixture
def left_behind(settings, device, wards, wait_for):
    """Two locked GPUs in the journal, and nobody who looks after them."""
    guardian = Guardian(settings)
    guardian.intend(wards)
    for gpu in range(2):
        device.lock_clocks(gpu, 210, 210)
    os.kill(guardian.pid, signal.SIGKILL)
    wait_for(lambda: not guardian.alive, "the guardian's end")
    guardian.close()
    assert started_ticks(guardian.pid) is None


@pytest.mark.usefixtures("left_behind")
def test_they_are_found_and_given_back(state, device):
    found = leftovers.find(state)
    assert [(left.uuid, left.taken, left.entry.guardian_lives) for left in found] == [
        ("GPU-0", False, False),
        ("GPU-1", False, False),
    ]
    restored, failed = leftovers.restore(state)
    assert [left.uuid for left in restored] == ["GPU-0", "GPU-1"]
    assert failed == []
    assert device.gpus["locked_max_mhz"].tolist() == [0, 0]
    assert leftovers.find(state) == []


@pytest.mark.usefixtures("left_behind")
def test_the_next_controller_gives_them_back_before_anything_else(settings, device):
    told = []
    with Guardian(settings, report=told.append):
        assert device.gpus["locked_max_mhz"].tolist() == [0, 0]
    assert told == [f"gave back GPU GPU-{gpu}, which an earlier controller had left behind" for gpu in (0, 1)]


@pytest.mark.usefixtures("left_behind")
def test_one_that_cannot_be_given_back_stays_in_the_journal(state, device):
    device.gpus[0]["faults"] = Fault.NO_PERMISSION
    restored, failed = leftovers.restore(state)
    assert [left.uuid for left in restored] == ["GPU-1"]
    assert "Insufficient Permissions" in failed[0].problem
    assert [left.uuid for left in leftovers.find(state)] == ["GPU-0"]


def test_what_somebody_controls_is_left_alone(guardian, state, device, wards):
    guardian.intend(wards)
    device.lock_clocks(0, 210, 210)
    assert [left.taken for left in leftovers.find(state)] == [True, True]
    assert leftovers.restore(state) == ([], [])
    assert device.gpus[0]["locked_max_mhz"] == 210


def test_an_unreadable_journal_is_told_and_kept(state):
    path = state.path / "GPU-9.json"
    path.touch(mode=0o600)
    restored, failed = leftovers.restore(state)
    assert restored == []
    assert "nvidia-smi -i GPU-9 -rgc" in failed[0].problem
    assert path.exists()
