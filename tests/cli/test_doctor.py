"""`throttllem doctor`: what stands in the way of controlling clocks, and what to do about it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pynvml
import pytest

from throttllem_env.gpu import DeviceFile
from throttllem_env.gpu.guardian import Driver, Guardian, GuardianSettings, StateFolder, Ward
from throttllem_env.live.doctor import rights

UUID = "GPU-00000000-0000-0000-0000-00000000000{}"
IDLE_W = {mhz: 40.0 + mhz / 30 for mhz in range(210, 1411, 15)}


@pytest.fixture(autouse=True)
def state(monkeypatch):
    """Books of its own, and no zeusd."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as name:
        monkeypatch.setenv("THROTTLLEM_STATE_DIR", f"{name}/state")
        monkeypatch.setenv("ZEUSD_SOCK_PATH", f"{name}/zeusd.sock")
        monkeypatch.setenv("XDG_CACHE_HOME", name)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        yield Path(name) / "state"


@pytest.fixture
def device(tmp_path):
    device = DeviceFile.create(tmp_path / "gpus", IDLE_W, 2, name="Emulated A100", set_delay_s=0.001)
    yield device
    device.close()


@pytest.fixture
def gpus(nvml_double, device, monkeypatch):
    """Two GPUs, whose clocks this process may set."""
    monkeypatch.setattr(rights, "is_root", lambda: True)
    with nvml_double.patched(device.path):
        yield device


@pytest.fixture
def port():
    """A free port below those that the kernel hands out, so that no other test gets it meanwhile."""
    for candidate in range(20_000 + os.getpid() % 5_000, 30_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", candidate))
            return candidate
    pytest.fail("no free port between 20000 and 30000")


def no_driver():
    raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)


def test_without_a_gpu_it_says_so_and_what_works_all_the_same(throttllem, monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    done = throttllem("doctor")
    assert done.status == 1
    assert "no NVIDIA driver: NVML Shared Library Not Found" in done.stdout
    assert "simulation, training" in done.stdout
    assert "not ready" in done.stdout


def test_json_is_for_scripts(throttllem, monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    done = throttllem("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.status == 1
    assert report["ready"] is False
    assert report["gpus"] == []
    assert {finding["verdict"] for finding in report["findings"]} <= {"good", "note", "problem"}


@pytest.mark.usefixtures("gpus")
def test_with_gpus_and_rights_it_is_ready(throttllem, port):
    done = throttllem("doctor", "--json", "--ports", port)
    report = json.loads(done.stdout)
    assert done.status == 0, done.stdout
    assert report["ready"] is True
    assert [gpu["uuid"] for gpu in report["gpus"]] == [UUID.format(0), UUID.format(1)]
    assert report["gpus"][0]["clocks_mhz"][-1] == report["gpus"][0]["sm_mhz"] == 1410
    assert "Emulated A100, 81 clocks of 210-1410 MHz" in throttllem("doctor").stdout


def test_looking_changes_nothing(throttllem, gpus):
    throttllem("doctor")
    assert gpus.gpus["sets"].tolist() == gpus.gpus["resets"].tolist() == [0, 0]


@pytest.mark.usefixtures("gpus")
def test_missing_rights_come_with_commands(throttllem, monkeypatch):
    monkeypatch.setattr(rights, "is_root", lambda: False)
    monkeypatch.setattr(rights, "has_capability", lambda bit: False)
    done = throttllem("doctor")
    assert done.status == 1
    assert "clocks cannot be set, only observed" in done.stdout
    for command in ("sudo ", "setpriv", "--cap-add SYS_ADMIN", "zeusd serve"):
        assert command in done.stdout


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("how", ["capability", "zeusd"])
def test_root_is_not_the_only_way(throttllem, monkeypatch, port, how):
    monkeypatch.setattr(rights, "is_root", lambda: False)
    monkeypatch.setattr(rights, "has_capability", lambda bit: how == "capability")
    with socket.socket(socket.AF_UNIX) as daemon:
        if how == "zeusd":
            daemon.bind(os.environ["ZEUSD_SOCK_PATH"])
        assert throttllem("doctor", "--ports", port).status == 0


def test_a_split_gpu_is_a_problem_and_a_forgetful_driver_a_note(throttllem, gpus):
    gpus.gpus[0]["mig"] = 1
    gpus.gpus[1]["persistence"] = 0
    report = json.loads(throttllem("doctor", "--json").stdout)
    found = {finding["subject"]: finding for finding in report["findings"]}
    assert found["GPU 0"]["verdict"] == "problem"
    assert found["GPU 0"]["advice"] == ["sudo nvidia-smi -i 0 -mig 0"]
    assert found["GPU 1"]["verdict"] == "note"
    assert found["GPU 1"]["advice"] == ["sudo nvidia-smi -i 1 -pm 1"]


def test_why_a_clock_is_low_is_said(throttllem, gpus):
    gpus.gpus[0]["reasons"] = 0x4
    gpus.gpus[0]["busy_until_ns"] = 2**62
    assert "the power limit is reached" in throttllem("doctor").stdout


@pytest.mark.usefixtures("gpus")
def test_a_port_that_is_named_must_be_free(throttllem):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        done = throttllem("doctor", "--ports", taken)
        assert done.status == 1
        assert f"port {taken}" in done.stdout
        assert "is taken" in done.stdout


@pytest.mark.parametrize(
    "arguments", [("--ports", "x"), ("--ports", "99999"), ("--restore-mhz", "1410"), ("--restore-mhz", "9,1")]
)
def test_wrong_input_is_status_2(throttllem, arguments):
    done = throttllem("doctor", *arguments)
    assert done.status == 2
    assert "expected" in done.stderr


def run(nvml_double, device, *arguments):
    """The command in a process of its own, as root."""
    code = (
        "import sys\nfrom throttllem_env.live.doctor import rights\nrights.is_root = lambda: True\n"
        "from throttllem_env.cli import main\nsys.argv[0] = 'throttllem'\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=nvml_double.environment(device.path),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_write_measures_and_restores(nvml_double, device, port):
    done = run(nvml_double, device, "doctor", "--write", "--json", "--ports", port)
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["switching"]["median_s"] >= 0.001
    assert min(device.gpus["sets"]) > 0
    assert device.gpus["locked_max_mhz"].tolist() == [0, 0]
    remembered = run(nvml_double, device, "doctor", "--ports", port)
    assert "a change takes" in remembered.stdout


def test_write_without_permission_says_so(nvml_double, device):
    device.gpus[0]["faults"] = 1
    done = run(nvml_double, device, "doctor", "--write", "--json")
    report = json.loads(done.stdout)
    (found,) = (finding for finding in report["findings"] if finding["subject"] == "switching")
    assert done.returncode == 1
    assert found["verdict"] == "problem"
    assert "Insufficient Permissions" in found["text"]
    assert "guardian" not in {
        entry["subject"] for entry in report["findings"] if entry["verdict"] == "problem"
    }
    assert device.gpus["locked_max_mhz"].tolist() == [0, 0]


def leave_behind(device, folder):
    """A controller and its guardian are killed while GPU 1 is locked."""
    settings = GuardianSettings(
        Driver("emulated", str(device.path)), folder, beat_s=0.02, silence_s=600, answer_s=60
    )
    guardian = Guardian(settings)
    guardian.intend([Ward(UUID.format(1), 1)])
    device.lock_clocks(1, 210, 210)
    os.kill(guardian.pid, signal.SIGKILL)
    while guardian.alive:
        time.sleep(0.01)
    guardian.close()


@pytest.mark.usefixtures("gpus")
def test_gpus_left_behind_are_found_and_given_back(throttllem, device, state, port):
    leave_behind(device, state)
    done = throttllem("doctor", "--ports", port)
    assert done.status == 1
    assert f"GPU {UUID.format(1)} may still be locked" in done.stdout
    assert "throttllem doctor --reset" in done.stdout
    assert device.gpus[1]["locked_max_mhz"] == 210, "looking changes nothing"
    done = throttllem("doctor", "--reset", "--ports", port)
    assert done.status == 0, done.stdout
    assert f"gave back GPU {UUID.format(1)}" in done.stdout
    assert device.gpus[1]["locked_max_mhz"] == 0
    assert "no GPU was left behind" in throttllem("doctor", "--reset", "--ports", port).stdout


def test_a_reset_that_fails_is_status_1_and_may_be_repeated(throttllem, device, state, monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    leave_behind(device, state)
    device.gpus[1]["faults"] = 2
    done = throttllem("doctor", "--reset")
    assert done.status == 1
    assert "GPU is lost" in done.stdout
    device.gpus[1]["faults"] = 0
    assert "gave back" in throttllem("doctor", "--reset").stdout
    assert device.gpus[1]["locked_max_mhz"] == 0


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_somebody_controls_is_left_alone(throttllem, device, state, port):
    settings = GuardianSettings(Driver("emulated", str(device.path)), state, silence_s=600, answer_s=60)
    with Guardian(settings) as guardian:
        guardian.intend([Ward(UUID.format(0), 0)])
        device.lock_clocks(0, 210, 210)
        done = throttllem("doctor", "--reset", "--ports", port)
        assert done.status == 0, done.stdout
        assert f"its clock is controlled by process {os.getpid()}" in done.stdout
        assert device.gpus[0]["locked_max_mhz"] == 210


def test_books_that_others_can_read_are_a_problem(throttllem, state):
    StateFolder(state).close()
    state.chmod(0o755)
    done = throttllem("doctor")
    assert done.status == 1
    assert "chmod go=" in done.stdout


def test_vllm_is_not_imported(throttllem):
    throttllem("doctor")
    assert "vllm" not in sys.modules
