"""Stands between a pool and one server: keeps its log, and leaves nothing of it behind.

Run as a script, by its path, so that it imports nothing but the standard library and is up in milliseconds:

    python -I -S keeper.py LOG_FILE LOG_BYTES USER COMMAND...

USER is whose the server's processes are; empty where they are the keeper's own user's, too.
It leads a session of its own. Standard input is a lifeline: when it ends, or when the parent is no longer
the parent, everything in the session is killed, so that a pool that was itself killed leaves no server
running. Standard output gets a copy of what the server says, as far as the pool reads it. A log that cannot
be written, as on a full disk, is given up piece by piece: a server never waits for its log. SIGTERM goes on
to the server. The exit code is the server's, as a shell would say it.
"""

import contextlib
import ctypes
import os
import pwd
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.5
"""How often it looks after its parent."""
END_S = 10.0
"""How long it tries to end what is left of a server."""


class Log:
    """A file that is begun anew when it is full, with one older file beside it.

    Args:
        path: Where; the older one has `.1` at its end.
        limit_bytes: When it is full.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path, self._limit_bytes = path, limit_bytes
        self._fd: int | None = None
        self._bytes = 0
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        """Write, or lose it if it cannot be written."""
        try:
            if self._fd is None or self._bytes + len(data) > self._limit_bytes:
                self._begin()
            assert self._fd is not None, "it has just been opened"
            if self.lost_bytes:
                data = b"[%d bytes of this log were lost]\n" % self.lost_bytes + data
            os.write(self._fd, data)
            self._bytes, self.lost_bytes = self._bytes + len(data), 0
        except OSError:
            self.lost_bytes += len(data)

    def _begin(self) -> None:
        """Open the file; one that is full becomes the older one."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._bytes = os.fstat(self._fd).st_size


def processes(wanted: Callable[[int, int, int], bool]) -> Iterator[int]:
    """Processes that are alive, zombies left out.

    Args:
        wanted: Asked about (process, parent, session).
    """
    for pid in map(int, filter(str.isdigit, (entry.name for entry in Path("/proc").iterdir()))):
        if stat := process_stat(pid):
            state, parent, session = stat
            if state not in "ZX" and wanted(pid, parent, session):
                yield pid


def process_stat(pid: int) -> tuple[str, int, int] | None:
    """State letter, parent and session of a process; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], int(fields[1]), int(fields[3])


def session_members(session: int) -> list[int]:
    """Processes of a session that are alive."""
    return list(processes(lambda pid, parent, of: of == session))


def kill(pids: list[int]) -> None:
    """SIGKILL them; who is gone already is no matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def dropped_to(user: str) -> tuple[int, int, list[int], dict[str, str]]:
    """User, group, further groups and environment of a process that has no rights but that user's."""
    entry = pwd.getpwnam(user)
    home = {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}
    groups = os.getgrouplist(user, entry.pw_gid)
    return entry.pw_uid, entry.pw_gid, groups, {**os.environ, **home}


class Keeper:
    """One server's.

    Args:
        log: Where its words go.
        command: What to run.
        user: Whose its processes are; empty for ours.
    """

    def __init__(self, log: Log, command: list[str], user: str = "") -> None:
        self._log = log
        self._parent = os.getppid()
        self._status: int | None = None
        os.set_blocking(1, False)
        # What a server leaves behind becomes our child, and is not lost sight of.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides, not the terminal
        uid, gid, groups, environment = dropped_to(user) if user else (None, None, None, None)
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=uid,
            group=gid,
            extra_groups=groups,
            env=environment,
        )
        signal.signal(signal.SIGTERM, lambda number, frame: self._pass_on(number))

    def _pass_on(self, number: int) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._server.pid, number)

    def keep(self) -> int:
        """Stay until the server has ended; returns its exit code."""
        assert self._server.stdout is not None, "it is a pipe"
        words = self._server.stdout.fileno()
        os.set_blocking(words, False)
        with selectors.DefaultSelector() as selector:
            selector.register(words, selectors.EVENT_READ)
            selector.register(0, selectors.EVENT_READ)
            while self._status is None:
                ready = {key.fd for key, _ in selector.select(LOOK_S)}
                if words in ready and not self._relay(words):
                    selector.unregister(words)
                if os.getppid() != self._parent or (0 in ready and not os.read(0, 64)):
                    break
                self._reap()
        self._end()
        self._relay(words)
        code = os.waitstatus_to_exitcode(self._status) if self._status is not None else 1
        return code if code >= 0 else 128 - code

    def _relay(self, words: int) -> bool:
        """Pass on what the server has said; returns whether it may say more."""
        while True:
            try:
                data = os.read(words, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._log.write(data)
            with contextlib.suppress(OSError):  # the pool does not read, or is gone
                os.write(1, data)

    def _reap(self) -> None:
        """Take note of children that have ended, the adopted ones too."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._server.pid:
                    self._status = ended[1]

    def _end(self) -> None:
        """Kill what is left of the server, wherever it has gone."""
        me, session = os.getpid(), os.getsid(0)
        deadline_s = time.monotonic() + END_S
        while time.monotonic() < deadline_s:
            left = [
                pid for pid in processes(lambda pid, parent, of: of == session or parent == me) if pid != me
            ]
            kill(left)
            self._reap()
            if not left:
                return
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(Keeper(Log(Path(sys.argv[1]), int(sys.argv[2])), sys.argv[4:], sys.argv[3]).keep())
