"""`throttllem serve` as a process: vLLM on emulated GPUs, under control, from its start to its end."""

import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from throttllem_env.gpu.device_file import DeviceFile
from throttllem_env.live.gpus_of import emulated_gpus
from throttllem_env.scenario import load_scenario

pytestmark = pytest.mark.live

LIMIT_S = 300
"""No wait here is longer, on the busiest machine; on a quiet one each takes some twenty seconds."""


class Service:
    """The process, what it has said, and where it serves."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)  # as they come

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + LIMIT_S
        while not condition():
            said = "".join(self.lines[-20:])
            assert self.process.poll() is None, f"it ended before {what}:\n{said}"
            assert time.monotonic() < until_s, f"not within {LIMIT_S} s: {what}:\n{said}"
            time.sleep(0.1)

    def says(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    @property
    def url(self) -> str:
        found = (re.search(r"requests to (http://[\d.:]+)/v1 wait", line) for line in self.lines)
        return next(match.group(1) for match in found if match)

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=LIMIT_S) as page:
            rows = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (row.rsplit(" ", 1) for row in rows)}


@contextmanager
def serving(gpus: Path, logs: Path, agent: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "throttllem_env", "serve", "--port", "0", "--emulate", "--agent", agent]
    command += ["--device-file", str(gpus), "--logs", str(logs)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield Service(process)
    finally:
        process.kill()
        process.wait()


def trace(folder: Path) -> Path:
    """Thirty requests in twenty seconds, in the format of Azure's traces."""
    rows = [f"2023-11-16 18:00:{at // 3 * 2:02d}.{at % 3}000000,{50 + 30 * at},{20 + at}" for at in range(30)]
    path = folder / "trace.csv"
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return path


def left(gpus: Path) -> list[int]:
    """Processes that were told of these GPUs: servers, and the guardian."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if str(gpus).encode() in told:
            found.append(int(folder.name))
    return found


def test_clock_and_size_are_set_under_load_and_given_back_in_the_end(tmp_path: Path) -> None:
    scenario = load_scenario("llama2-13b-a100")
    path = emulated_gpus(tmp_path / "gpus", scenario)
    device = DeviceFile(path)
    with serving(path, tmp_path / "logs", "static-frequency:mhz=990,size=2") as service:
        service.wait(lambda: service.says("wait until a server is there"), "its port was open")
        service.wait(lambda: service.says("serving http://"), "it served")
        service.wait(lambda: device.gpus["sm_mhz"][:4].tolist() == [990] * 4, "its clock was set")
        played = [sys.executable, "-m", "throttllem_env", "replay", "--url", service.url]
        played += ["--trace", str(trace(tmp_path)), "--duration", "20"]
        load = subprocess.run(played, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert load.returncode == 0, load.stdout + load.stderr
        service.wait(lambda: service.says("has drained and is stopped"), "the size was changed")
        service.wait(lambda: device.gpus["sm_mhz"][4:6].tolist() == [990] * 2, "the new one's clock was set")
        service.wait(
            lambda: device.gpus["sm_mhz"][:4].tolist() == [1410] * 4, "the old clocks were given back"
        )
        names = [f'throttllem_gpu_clock_mhz{{gpu="{gpu}"}}' for gpu in (4, 5)]
        service.wait(lambda: [service.metrics()[name] for name in names] == [990] * 2, "they were shown")
        shown = service.metrics()
        assert shown["throttllem_size_changes_total"] == 1
        assert shown["throttllem_energy_joules_total"] > 1000
        assert shown['throttllem_requests_total{outcome="finished"}'] > 0
        assert shown["throttllem_decisions_total"] > 20
        assert not shown.get('throttllem_requests_total{outcome="aborted"}')
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(LIMIT_S) == 0, "".join(service.lines[-20:])
    assert device.gpus["locked_max_mhz"].tolist() == [0] * scenario.gpus_per_node
    until_s = time.monotonic() + LIMIT_S
    while left(path):  # what was killed takes a moment to be gone
        assert time.monotonic() < until_s, left(path)
        time.sleep(0.1)
    device.close()
