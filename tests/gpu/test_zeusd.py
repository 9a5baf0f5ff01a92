"""Setting clocks through zeusd: our side against a daemon that speaks the documented protocol."""

import http.server
import json
import shutil
import socketserver
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from throttllem_env.gpu import ActuatorError, DeviceFile, Trouble, make_actuator
from throttllem_env.gpu.zeusd import ZeusdActuator, ZeusdClient

WRITES = {
    "/gpu/set_gpu_locked_clocks": {"gpu_ids", "min_clock_mhz", "max_clock_mhz", "block"},
    "/gpu/reset_gpu_locked_clocks": {"gpu_ids", "block"},
}


class FakeZeusd(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Speaks what https://ml.energy/zeus/zeusd/api/ says, over emulated GPUs.

    Attributes:
        calls: Every change that was asked for, as path and query.
        discovery: The answer to /discover.
        refusal: Status and body to refuse changes with, if any.
        token: What callers must show, if anything.
    """

    daemon_threads = True

    def __init__(self, path: Path, device: DeviceFile) -> None:
        super().__init__(str(path), Handler)
        self.device = device
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.refusal: tuple[int, Any] | None = None
        self.token: str | None = None
        self.scopes = ["gpu-control"]
        gpus = [
            {"id": gpu, "name": "Emulated GPU", "pci_address": f"0000:{gpu + 1:02x}:00.0"} for gpu in range(2)
        ]
        self.discovery: Any = {
            "gpus": gpus,
            "cpus": [],
            "enabled_api_groups": ["gpu-control"],
            "auth_required": False,
        }


class Handler(http.server.BaseHTTPRequestHandler):
    server: FakeZeusd

    def address_string(self) -> str:
        return "local"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data:
            self.wfile.write(data)

    def _known(self) -> bool:
        return self.server.token is None or self.headers["Authorization"] == f"Bearer {self.server.token}"

    def do_GET(self) -> None:
        if self.path == "/discover":
            self._answer(200, self.server.discovery)
        elif self.path == "/auth/whoami" and self._known():
            self._answer(200, {"sub": "somebody", "scopes": self.server.scopes})
        else:
            self._answer(401, b"missing or invalid token")

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.server.calls.append((url.path, query))
        if not self._known():
            self._answer(401, b"missing or invalid token")
        elif set(query) != WRITES.get(url.path):
            self._answer(400, b"unknown field")
        elif self.server.refusal:
            self._answer(*self.server.refusal)
        else:
            self._change(url.path, query)
            self._answer(200)

    def _change(self, path: str, query: dict[str, str]) -> None:
        for gpu in map(int, query["gpu_ids"].split(",")):
            if path == "/gpu/reset_gpu_locked_clocks":
                self.server.device.reset_clocks(gpu)
            else:
                clocks = int(query["min_clock_mhz"]), int(query["max_clock_mhz"])
                self.server.device.lock_clocks(gpu, *clocks)


@pytest.fixture
def device(tmp_path: Path):
    device = DeviceFile.create(tmp_path / "gpus", {210: 50.0, 810: 60.0, 1410: 80.0}, 2, set_delay_s=0.0)
    yield device
    device.close()


@pytest.fixture
def zeusd(nvml_double: Any, device: DeviceFile, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="zeusd"))  # a socket's path must be short
    daemon = FakeZeusd(folder / "zeusd.sock", device)
    thread = threading.Thread(target=daemon.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(folder / "zeusd.sock"))
    monkeypatch.delenv("ZEUSD_TOKEN", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with nvml_double.patched(device.path):
        yield daemon
    daemon.shutdown()
    daemon.server_close()
    thread.join()
    shutil.rmtree(folder)


def test_changes_go_to_the_daemon_and_readings_to_the_driver(zeusd, device):
    actuator = make_actuator("zeusd")
    assert actuator.lock([0, 1], 800).ok
    assert device.gpus["sm_mhz"].tolist() == [810, 810]
    assert actuator.read(1).sm_mhz == 810
    assert actuator.reset([1]).ok
    assert device.gpus["sm_mhz"].tolist() == [810, 1410]
    actuator.close()
    locks = [query for path, query in zeusd.calls if path == "/gpu/set_gpu_locked_clocks"]
    asked = {"min_clock_mhz": "810", "max_clock_mhz": "810", "block": "true"}
    assert sorted(locks, key=str) == [{"gpu_ids": "0", **asked}, {"gpu_ids": "1", **asked}]


def test_the_operators_restore_setting_is_locked(zeusd, device):
    actuator = make_actuator("zeusd", [0], restore_mhz=(210, 810))
    actuator.reset([0])
    assert zeusd.calls[-1][1]["max_clock_mhz"] == "810"
    actuator.close()


@pytest.mark.parametrize(
    ("refusal", "trouble"),
    [
        ((403, {"errors": {"0": "NVML error: insufficient permissions"}}), Trouble.NO_PERMISSION),
        ((400, {"errors": {"0": "not supported"}}), Trouble.NOT_SUPPORTED),
        ((404, b"disabled API group"), Trouble.NOT_SUPPORTED),
        ((500, {"errors": {"0": "GPU is lost"}}), Trouble.LOST),
        ((500, b"something"), Trouble.UNKNOWN),
    ],
)
def test_a_refusal_is_reported_in_the_daemons_words(zeusd, device, refusal, trouble):
    actuator = make_actuator("zeusd")
    zeusd.refusal = refusal
    error = actuator.lock([0], 810).failed[0]
    assert error.trouble is trouble
    assert f"status {refusal[0]}" in str(error)
    assert actuator.reset([0]).failed[0].trouble is trouble
    assert device.gpus[0]["sm_mhz"] == 1410
    actuator.close()


def test_a_token_is_shown_where_one_is_wanted(zeusd, monkeypatch):
    zeusd.discovery["auth_required"], zeusd.token = True, "secret"
    with pytest.raises(ActuatorError, match="401") as raised:
        ZeusdActuator()
    assert raised.value.trouble is Trouble.NO_PERMISSION
    monkeypatch.setenv("ZEUSD_TOKEN", "secret")
    actuator = ZeusdActuator()
    assert actuator.lock([0], 810).ok
    actuator.close()
    zeusd.scopes = ["gpu-read"]
    with pytest.raises(ActuatorError, match="lacks the scope gpu-control"):
        ZeusdActuator()


def test_a_daemon_without_control_is_refused(zeusd):
    zeusd.discovery["enabled_api_groups"] = ["gpu-read"]
    with pytest.raises(ActuatorError, match="runs without gpu-control"):
        ZeusdActuator()


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ([], "GPU 0: zeusd at .* does not have it"),
        ([{"id": 0, "name": "NVIDIA T4"}], "another GPU by this number"),
        ([{"id": 0, "name": "Emulated GPU", "pci_address": "0000:41:00.0"}], "another GPU by this number"),
    ],
)
def test_a_daemon_with_other_gpus_is_refused(zeusd, gpus, message):
    zeusd.discovery["gpus"] = gpus
    with pytest.raises(ActuatorError, match=message):
        ZeusdActuator([0])


@pytest.mark.parametrize("answer", [b"<html>", {"gpus": 3}, [1]])
def test_a_daemon_that_speaks_otherwise_is_refused(zeusd, answer):
    zeusd.discovery = answer
    with pytest.raises(ActuatorError, match=r"zeusd.*/discover") as raised:
        ZeusdClient().discover()
    assert raised.value.trouble is Trouble.UNKNOWN


def test_without_a_daemon_the_error_says_what_to_do(zeusd, tmp_path):
    with pytest.raises(ActuatorError, match="ZEUSD_SOCK_PATH names its socket") as raised:
        ZeusdActuator(client=ZeusdClient(str(tmp_path / "none")))
    assert raised.value.trouble is Trouble.UNAVAILABLE


def test_a_daemon_that_dies_fails_the_change(zeusd, monkeypatch):
    actuator = ZeusdActuator()
    actuator._client.path = "/nonexistent/zeusd.sock"
    assert actuator.lock([0], 810).failed[0].trouble is Trouble.UNAVAILABLE
    actuator.close()
