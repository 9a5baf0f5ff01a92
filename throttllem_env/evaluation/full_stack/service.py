"""`throttllem serve` as a process of its own: its start, what it says, its metrics, and what it leaves."""

import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE_S = 300.0
"""How long anything may take on the busiest machine."""
LOOK_S = 0.05
SHOWN_LINES = 20


class Service:
    """The process.

    It leads a session of its own, so that a Ctrl-C at the terminal is not for it, and ends with the block.

    Attributes:
        process: It.
        lines: What it has said on stderr.
        device_file: The emulated GPUs that it was told of.
    """

    def __init__(
        self,
        device_file: Path,
        logs: Path,
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it.

        Args:
            device_file: The GPUs (`throttllem_env.gpu.DeviceFile.create`).
            logs: Folder for its servers' logs.
            options: Of `throttllem serve`, besides these and the port, which is a free one.
            environment: Its variables; by default this process's.
        """
        self.device_file, self.lines = device_file, list[str]()
        command = [sys.executable, "-m", "throttllem_env", "serve", "--port", "0", "--emulate"]
        command += ["--device-file", str(device_file), "--logs", str(logs), *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join(PATIENCE_S)
        with suppress(OSError):
            self._stderr.close()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self._stderr = self.process.stderr
        self.lines.extend(self._stderr)  # as they come

    def says(self, words: str) -> bool:
        """Whether it has said something."""
        return any(words in line for line in list(self.lines))

    def wait(self, condition: Callable[[], object], what: str, *, alive: bool = True) -> float:
        """Wait for something; gives when it came, `time.monotonic()`.

        Args:
            condition: What to wait for.
            what: The same, for people.
            alive: Whether it is in vain once the process has ended.

        Raises:
            TimeoutError: It did not come within `PATIENCE_S`.
            RuntimeError: The process ended.
        """
        until_s = time.monotonic() + PATIENCE_S
        while not condition():
            if alive and self.process.poll() is not None:
                raise RuntimeError(f"the service ended before {what}:\n{self._shown()}")
            if time.monotonic() > until_s:
                raise TimeoutError(f"not within {PATIENCE_S:g} s: {what}:\n{self._shown()}")
            time.sleep(LOOK_S)
        return time.monotonic()

    def _shown(self) -> str:
        return "".join(self.lines[-SHOWN_LINES:])

    def await_serving(self) -> None:
        """Wait until a server takes requests."""
        self.wait(lambda: self.says("serving http://"), "a server takes requests")

    @property
    def url(self) -> str:
        """Where it listens, from the moment on that it says so."""
        found = (re.search(r"requests to (http://[\d.:]+)/v1 wait", line) for line in list(self.lines))
        return next(match.group(1) for match in found if match)

    def metrics(self) -> dict[str, float]:
        """Its page for Prometheus: values by name and labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE_S) as page:
            rows = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (row.rsplit(" ", 1) for row in rows)}

    def left(self) -> list[int]:
        """Processes that know its GPUs and live: itself, servers and their keepers, the guardian."""
        told = str(self.device_file).encode()
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if told in _told(folder)]


def _told(folder: Path) -> bytes:
    """Command line and environment of a process; nothing of one that has ended."""
    try:
        return (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    except OSError:
        return b""
