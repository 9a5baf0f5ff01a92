"""A server's process, seen from the pool."""

import asyncio
import contextlib
import math
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

from throttllem_env.serving.vllm.servers import keeper
from throttllem_env.serving.vllm.servers.command import ServerCommand

TAIL_LINES = 60
LOOK_S = 0.05
"""How often a process that is to end is looked at."""


class ServerProcess:
    """A keeper and the server that it keeps; make it in a running event loop.

    Args:
        command: What to run.
        log_path: Where its log goes.
        log_bytes: When the log is begun anew.
        user: Whose the server's processes are; empty for ours.

    Attributes:
        pid: The keeper's process id, which is also the id of the session in which all of the server lives.
        tail: The last lines that the server has said; kept even where no log can be written.
    """

    def __init__(self, command: ServerCommand, log_path: Path, log_bytes: int, user: str = "") -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._unfinished = b""
        script = (sys.executable, "-I", "-S", keeper.__file__)
        argv = [*script, str(log_path), str(log_bytes), user, *command.argv]
        self._keeper = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(command),
            start_new_session=True,
        )
        self.pid = self._keeper.pid
        assert self._keeper.stdout is not None, "it is a pipe"
        self._words = self._keeper.stdout.fileno()
        os.set_blocking(self._words, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._words, self._listen)

    def _listen(self) -> None:
        """Take in what the server says."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._words, 65536):
                *lines, self._unfinished = (self._unfinished + data).split(b"\n")
                self.tail.extend(line.decode("utf-8", "replace") for line in lines)
                self._unfinished = self._unfinished[-4096:]
            self._loop.remove_reader(self._words)

    @property
    def exit_code(self) -> int | None:
        """The server's exit code, None while it runs."""
        return self._keeper.poll()

    def members(self) -> list[int]:
        """Processes of the server that are alive, the keeper left out."""
        return [pid for pid in keeper.session_members(self.pid) if pid != self.pid]

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for all of it where that was not enough; returns when nothing is left.

        Args:
            grace_s: Between the two; 0 kills at once.
        """
        try:
            if grace_s > 0:
                self._keeper.terminate()
                await self._ended(grace_s)
            self._cut_lifeline()
            if self._keeper.poll() is None:  # it knows best what is left
                await self._ended(keeper.END_S)
        finally:  # cancelled, or the keeper itself is stuck
            self.kill()
        await self._ended(math.inf)
        self._close()

    async def _ended(self, bound_s: float) -> None:
        """Wait until nothing is left, or until the bound."""
        deadline_s = self._loop.time() + bound_s
        while self._keeper.poll() is None or keeper.session_members(self.pid):
            if self._loop.time() >= deadline_s:
                return
            await asyncio.sleep(LOOK_S)

    def _cut_lifeline(self) -> None:
        assert self._keeper.stdin is not None, "it is a pipe"
        self._keeper.stdin.close()

    def kill(self) -> None:
        """SIGKILL every process of it, the keeper included."""
        self._cut_lifeline()
        keeper.kill(keeper.session_members(self.pid))

    def _close(self) -> None:
        self._listen()
        self._loop.remove_reader(self._words)
        assert self._keeper.stdout is not None, "it is a pipe"
        self._keeper.stdout.close()


def environment(command: ServerCommand) -> dict[str, str]:
    """The environment that a server gets: ours, with what the command sets and takes away."""
    merged = dict(os.environ)
    for name, value in command.environment.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged
