"""A guardian gives GPUs back, whatever becomes of the others."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from throttllem_env.gpu import Fault
from throttllem_env.gpu.guardian import Driver, GpuTakenError, Guardian, GuardianError, StateFolder, Ward
from throttllem_env.gpu.guardian.rounds import Rounds
from throttllem_env.gpu.guardian.state import started_ticks


def locked(device) -> list[int]:
    return device.gpus["locked_max_mhz"].tolist()


def lock_all(device, mhz=210) -> None:
    for gpu in range(len(device.gpus)):
        device.lock_clocks(gpu, mhz, mhz)


def test_an_intent_is_on_the_disk_when_it_is_acknowledged(guardian, folder, wards):
    guardian.intend(wards)
    state = StateFolder(folder)
    assert state.uuids() == ["GPU-0", "GPU-1"]
    entry = state.read("GPU-0")
    assert entry.ward == wards[0]
    assert entry.guardian_pid == guardian.pid
    assert entry.controller_pid == os.getpid()
    assert entry.guardian_lives
    state.close()


def test_an_intent_changes_no_clock(guardian, device, wards):
    guardian.intend(wards)
    assert device.gpus["sets"].tolist() == device.gpus["resets"].tolist() == [0, 0]


def test_closing_restores_all_and_ends_the_guardian(guardian, device, folder, wards):
    guardian.intend(wards)
    lock_all(device)
    assert guardian.close() == {}
    assert locked(device) == [0, 0]
    assert started_ticks(guardian.pid) is None
    state = StateFolder(folder)
    assert state.uuids() == []
    assert not state.taken("GPU-0")
    state.close()


def test_a_released_gpu_is_restored_and_others_are_not(guardian, device, wards):
    guardian.intend(wards)
    lock_all(device)
    assert guardian.release(["GPU-1"]) == {}
    assert locked(device) == [210, 0]
    assert guardian.uuids == {"GPU-0"}


def test_the_operators_restore_setting_is_what_gpus_are_given_back_with(guardian, device):
    guardian.intend([Ward("GPU-0", 0, (810, 1410))])
    lock_all(device)
    guardian.close()
    assert device.gpus[0]["locked_min_mhz"] == 810
    assert device.gpus[0]["locked_max_mhz"] == 1410
    assert locked(device)[1] == 210, "nobody told it of this one"


CONTROLLER = """
import json, os, sys, time
from pathlib import Path
from throttllem_env.gpu import DeviceFile
from throttllem_env.gpu.guardian import Driver, Guardian, GuardianSettings, Ward

device, folder, silence_s = DeviceFile(Path(sys.argv[1])), Path(sys.argv[2]), float(sys.argv[3])
driver = Driver("emulated", sys.argv[1])
patient = {"patience_s": 60.0, "claim_s": 60.0, "answer_s": 60.0}
settings = GuardianSettings(driver, folder, beat_s=0.02, silence_s=silence_s, retry_s=0.01, **patient)
guardian = Guardian(settings)
guardian.intend([Ward(f"GPU-{gpu}", gpu) for gpu in range(2)])
for gpu in range(2):
    device.lock_clocks(gpu, 210, 210)
print(guardian.pid, flush=True)
exec(sys.argv[4])
"""


@pytest.fixture
def controller(device, folder):
    """Start a controller in a process of its own that locks all GPUs; gives it and its guardian's pid."""
    started = []

    def start(then="time.sleep(600)", silence_s=60.0):
        command = [sys.executable, "-c", CONTROLLER, str(device.path), str(folder), str(silence_s), then]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("then", ["os._exit(3)", "raise SystemExit(1)", "os.abort()"])
def test_a_controller_that_ends_without_a_word_leaves_no_gpu_locked(controller, device, wait_for, then):
    _, guardian = controller(then)
    wait_for(lambda: started_ticks(guardian) is None, "the guardian's end")
    assert locked(device) == [0, 0]


def test_a_killed_controller_leaves_no_gpu_locked(controller, device, folder, wait_for, log):
    process, guardian = controller()
    assert locked(device) == [210, 210]
    process.kill()
    wait_for(lambda: started_ticks(guardian) is None, "the guardian's end")
    assert locked(device) == [0, 0]
    assert f"the controller (pid {process.pid})" in log()
    assert "gave back GPU 1 (GPU-1) with the driver's default" in log()
    state = StateFolder(folder)
    assert state.uuids() == []
    state.close()


def test_a_child_that_keeps_the_channel_open_delays_nothing(controller, device, wait_for):
    """A fork holds copies of all that its parent had open."""
    fork = "child = os.fork()\nif child: print(child, flush=True)\ntime.sleep(600)"
    process, guardian = controller(fork)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        wait_for(lambda: started_ticks(guardian) is None, "the guardian's end")
        assert locked(device) == [0, 0]
        assert started_ticks(child) is not None
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_stopped_controller_leaves_no_gpu_locked_and_may_come_back(controller, device, wait_for, log):
    process, guardian = controller(silence_s=0.5)
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: locked(device) == [0, 0], "the clocks to be restored")
    assert "has heard nothing from the controller for 0.5 s" in log()
    os.kill(process.pid, signal.SIGCONT)
    wait_for(lambda: "hears from the controller again" in log(), "the controller's return")
    lock_all(device)
    process.kill()
    wait_for(lambda: started_ticks(guardian) is None, "the guardian's end")
    assert locked(device) == [0, 0]


def test_signals_of_a_terminal_and_a_service_manager_do_not_end_it(guardian, device, wards):
    guardian.intend(wards)
    lock_all(device)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        os.kill(guardian.pid, number)
    guardian.intend(wards)
    assert os.getsid(guardian.pid) == guardian.pid, "a session of its own"
    assert locked(device) == [210, 210]
    guardian.close()
    assert locked(device) == [0, 0]


@pytest.mark.parametrize("fault", [Fault.NO_PERMISSION, Fault.LOST, Fault.NOT_SUPPORTED])
def test_a_reset_that_fails_is_tried_until_it_succeeds(guardian, device, wait_for, wards, log, fault):
    guardian.intend(wards)
    lock_all(device)
    device.gpus[0]["faults"] = fault
    failed = guardian.close()
    assert list(failed) == ["GPU-0"]
    assert locked(device) == [210, 0], "one GPU's trouble is not another's"
    assert started_ticks(guardian.pid) is not None
    device.gpus[0]["faults"] = 0
    wait_for(lambda: started_ticks(guardian.pid) is None, "the guardian's end")
    assert locked(device) == [0, 0]
    assert log().count("cannot give back") == 1, "the same failure is logged once"


def test_a_slow_reset_is_waited_for_on_all_gpus_at_once(guardian, device, wards):
    guardian.intend(wards)
    lock_all(device)
    device.gpus["faults"] = Fault.SLOW
    assert guardian.close() == {}
    assert locked(device) == [0, 0]


def test_it_gives_up_in_the_end_and_leaves_the_journal(settings, device, folder, wait_for, wards, log):
    guardian = Guardian(dataclasses.replace(settings, give_up_s=0.2))
    guardian.intend(wards)
    lock_all(device)
    device.gpus[0]["faults"] = Fault.LOST
    guardian.close()
    wait_for(lambda: started_ticks(guardian.pid) is None, "the guardian's end")
    assert "gives up after 0.2 s on GPU 0 (GPU-0)" in log()
    assert "throttllem doctor --reset" in log()
    state = StateFolder(folder)
    assert state.uuids() == ["GPU-0"]
    assert not state.taken("GPU-0")
    state.close()


def test_a_gpu_has_one_controller(guardian, settings, wards):
    guardian.intend(wards[:1])
    with Guardian(dataclasses.replace(settings, claim_s=0.1)) as other:
        with pytest.raises(
            GpuTakenError, match=rf"GPU-0 is controlled by another process \(pid {os.getpid()}"
        ):
            other.intend(wards)
        assert other.uuids == frozenset(), "all or none"
        other.intend(wards[1:])


def test_a_gpu_is_taken_for_as_long_as_its_guardian_works_on_it(guardian, settings, device, wards):
    guardian.intend(wards)
    device.gpus[0]["faults"] = Fault.LOST
    guardian.close()
    with Guardian(dataclasses.replace(settings, claim_s=0.1)) as other, pytest.raises(GpuTakenError):
        other.intend(wards[:1])
    device.gpus[0]["faults"] = 0
    with Guardian(settings) as other:
        other.intend(wards)


def test_a_reset_that_silently_does_nothing_is_made_again(settings, device, wards, log):
    guardian = Guardian(dataclasses.replace(settings, doubt_s=60.0))
    guardian.intend(wards)
    lock_all(device)
    device.gpus[0]["faults"] = Fault.SILENT
    guardian.end()
    assert locked(device) == [210, 0]
    device.gpus[0]["faults"] = 0
    guardian.close()
    assert started_ticks(guardian.pid) is None
    assert locked(device) == [0, 0]
    assert "does so until it shows" in log()


def test_a_driver_whose_clock_never_shows_it_is_believed_in_the_end(settings, device, wards):
    """As with a GPU that idles: it is slow without a lock."""
    with Guardian(dataclasses.replace(settings, doubt_s=0.1)) as guardian:
        guardian.intend(wards)
        lock_all(device)
        device.gpus[0]["faults"] = Fault.SILENT
    assert started_ticks(guardian.pid) is None


def test_an_unknown_gpu_is_refused_and_the_guardian_goes_on(guardian, folder, wards):
    with pytest.raises(GuardianError, match="has 2 GPUs"):
        guardian.intend([*wards, Ward("GPU-7", 7)])
    state = StateFolder(folder)
    assert state.uuids() == []
    assert not state.taken("GPU-0")
    state.close()
    guardian.intend(wards)


def test_no_guardian_no_start(settings, tmp_path):
    with pytest.raises(GuardianError, match=r"cannot reset GPUs: .*nothing"):
        Guardian(dataclasses.replace(settings, driver=Driver("emulated", str(tmp_path / "nothing"))))


def test_a_full_disk_refuses_the_intent(guardian, folder, wards):
    """The journal cannot be written: here since somebody put a folder in its way."""
    (folder / "GPU-0.json.new").mkdir()
    with pytest.raises(GuardianError, match="refused"):
        guardian.intend(wards)
    (folder / "GPU-0.json.new").rmdir()
    guardian.intend(wards)


def test_the_death_of_the_guardian_is_noticed(guardian, wait_for, wards):
    noticed = []
    guardian.on_lost = lambda: noticed.append(1)
    guardian.intend(wards)
    os.kill(guardian.pid, signal.SIGKILL)
    wait_for(lambda: noticed, "somebody to notice")
    assert not guardian.alive
    with pytest.raises(GuardianError, match="gone"):
        guardian.intend(wards)
    assert set(guardian.close()) == {"GPU-0", "GPU-1"}


def test_a_guardian_that_stands_still_counts_as_gone_and_acts_on_nothing_later(settings, wait_for, wards):
    noticed = []
    with Guardian(settings) as guardian:
        guardian.on_lost = lambda: noticed.append(1)
        guardian.intend(wards)  # with patience: a busy disk may take seconds over the journal
        guardian._settings = dataclasses.replace(settings, answer_s=0.5)
        os.kill(guardian.pid, signal.SIGSTOP)
        wait_for(lambda: noticed, "somebody to notice")
        wait_for(lambda: started_ticks(guardian.pid) is None, "its end")


@pytest.mark.parametrize(
    "message", [{}, {"do": "set"}, {"do": "intend"}, {"do": "intend", "wards": [{}]}, []]
)
def test_what_it_does_not_understand_it_refuses(guardian, wards, message):
    guardian.intend(wards)
    guardian._channel.send(json.dumps(message).encode())
    guardian.intend(wards)
    assert guardian.alive


def test_a_lapse_of_the_controller_is_told(settings, wait_for, wards):
    """A heartbeat that comes too late: as after a stop of the whole process."""
    told, lapsed = [], []
    eager = dataclasses.replace(settings, beat_s=1.0, silence_s=0.1)
    with Guardian(eager, report=told.append) as guardian:
        guardian.on_lapse = lambda: lapsed.append(1)
        guardian.intend(wards)
        wait_for(lambda: lapsed, "the lapse to be told")
        assert "the guardian has restored all clocks" in told[0]


LOADED = """
import runpy, sys
sys.argv = ["guardian", "{}"]
try:
    runpy.run_path(sys.path.pop(), run_name="__main__")
except KeyError:  # nobody told it where its channel is
    print(*sys.modules)
"""


def test_it_is_small():
    """It shares no fate with the libraries of the controller: it loads none of them."""
    program = str(Path(sys.modules["throttllem_env.gpu.guardian"].__file__).with_name("__main__.py"))
    code = f"import sys; sys.path.append({program!r})\n{LOADED}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "throttllem_env" in loaded
    assert not loaded & {"numpy", "gymnasium", "pydantic", "asyncio", "aiohttp"}


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_it_waits_for_the_controllers_word_without_spinning(guardian, wards):
    guardian.intend(wards)
    before_s = processor_s(guardian.pid)
    time.sleep(1.0)
    assert processor_s(guardian.pid) - before_s < 0.5


def test_a_driver_that_hangs_keeps_other_gpus_from_nothing():
    """A call that never returns is waited for only so long, and is not made a second time."""
    hang, hangs, calls = threading.Event(), threading.Event(), []

    class Stuck:
        def restore(self, ward):
            calls.append(ward.index)
            if ward.index == 0:
                hangs.set()
                hang.wait()
            return True

    rounds = Rounds(Stuck(), 0.2)
    wards = [Ward("GPU-0", 0), Ward("GPU-1", 1)]
    outcome = rounds.attempt(wards)
    assert "has not answered for 0.2 s" in outcome["GPU-0"].failure
    assert hangs.wait(60)
    assert "has not answered" in rounds.attempt(wards[:1])["GPU-0"].failure
    assert calls.count(0) == 1
    hang.set()
    while not rounds.attempt(wards[:1])["GPU-0"].seen:
        pass


def test_nobody_can_connect_to_it(guardian):
    """Every socket that it has open is one end of a pair without a name, and none listens."""
    fds = Path(f"/proc/{guardian.pid}/fd").iterdir()
    inodes = {target[8:-1] for fd in fds if (target := str(fd.readlink())).startswith("socket:[")}
    assert len(inodes) == 1
    found = [line.split() for line in Path(f"/proc/{guardian.pid}/net/unix").read_text().splitlines()[1:]]
    (entry,) = (fields for fields in found if fields[6] in inodes)
    flags, kind, path = int(entry[3], 16), int(entry[4]), entry[7:]
    assert flags & 0x10000 == 0, "it listens"
    assert kind == socket.SOCK_SEQPACKET
    assert path == []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/{guardian.pid}/net/{name}")
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        assert not [line for line in lines if line.split()[9] in inodes]
