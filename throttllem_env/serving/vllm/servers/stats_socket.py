"""Where the engines' statistics arrive."""

import asyncio
import contextlib
import os
import pwd
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from throttllem_env.serving.vllm.stats import STATS_NAME, STATS_SOCKET, EngineStats

AT_ONCE = 256
"""Datagrams read before others get their turn in the event loop."""


class StatsSocket:
    """A Unix socket in a folder of its own; it lives in one event loop.

    Args:
        take: Told the server's number and what its engine said.
        user: Whose servers may write to it; None for ours. Nobody else's may.

    Attributes:
        path: The socket's; short, for such paths end at 107 bytes.
        received: Messages so far.
        malformed: Datagrams so far that were no such message.
    """

    def __init__(self, take: Callable[[int, EngineStats], None], user: str | None = None) -> None:
        self._take = take
        self.received = self.malformed = 0
        self._folder = Path(tempfile.mkdtemp(prefix="throttllem-"))
        self.path = self._folder / "stats"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))
        if user is not None:
            self._give_to(pwd.getpwnam(user))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def _give_to(self, user: pwd.struct_passwd) -> None:
        """Let a user write; the folder stays ours, so that nothing can be put in the socket's place."""
        self.path.chmod(0o600)
        os.chown(self.path, user.pw_uid, user.pw_gid)
        self._folder.chmod(0o711)

    def variables(self, server: int) -> dict[str, str]:
        """Environment variables that have a server's engine tell this socket."""
        return {STATS_SOCKET: str(self.path), STATS_NAME: str(server)}

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            try:
                datagram = self._socket.recv(256)
            except BlockingIOError:
                return
            try:
                server, stats = EngineStats.unpacked(datagram)
            except ValueError:
                self.malformed += 1
                continue
            self.received += 1
            self._take(server, stats)

    def close(self) -> None:
        """Take it away."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink()
            self._folder.rmdir()
