"""The books of all guardians of a user: which GPUs are in somebody's hands, and how to give them back.

A folder that only its owner can enter, with two files per GPU. `UUID.lock` is locked (flock) by whoever
controls the GPU: by the controller and its guardian alike, so that it counts as taken until both are gone.
`UUID.json` is the journal: there from before the first lock of its clock until it has been given back. A
journal whose GPU nobody holds is a leftover: both processes were killed, and the GPU may still be locked.
"""

import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throttllem_env.gpu.guardian.ward import Driver, Ward

VARIABLE = "THROTTLLEM_STATE_DIR"
LOG_NAME, LOG_BYTES = "guardian.log", 1 << 20


class StateError(OSError):
    """The folder cannot be trusted, or a file in it cannot be read."""


class GpuTakenError(StateError):
    """Another controller, or its guardian, has the GPU."""


@dataclass(frozen=True)
class Entry:
    """A GPU in the journal.

    Attributes:
        ward: The GPU and its restore setting.
        driver: How to reach it.
        guardian_pid: Who looked after it.
        guardian_started: When that process began, clock ticks since boot; tells it from a later one.
        controller_pid: For whom.
        written: When, seconds since 1970.
    """

    ward: Ward
    driver: Driver
    guardian_pid: int
    guardian_started: int
    controller_pid: int
    written: float

    @property
    def guardian_lives(self) -> bool:
        """Whether that very process is still there."""
        return started_ticks(self.guardian_pid) == self.guardian_started


def default_folder() -> Path:
    """Where the books lie: `$THROTTLLEM_STATE_DIR`, else `/run` for root, a user's own for others."""
    if told := os.environ.get(VARIABLE):
        return Path(told)
    if os.geteuid() == 0:
        return Path("/run/throttllem")
    if run := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(run) / "throttllem"
    return Path.home() / ".local" / "state" / "throttllem"


def started_ticks(pid: int) -> int | None:
    """When a process began, clock ticks since boot; None if there is none (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


class StateFolder:
    """The folder, opened once; what it holds is reached through that, wherever the path leads later.

    Attributes:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder, and make it if there is none.

        Raises:
            StateError: It is a link, belongs to somebody else, or others can enter it.
            OSError: It cannot be made or opened.
        """
        self.path = path
        if not path.is_symlink():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise StateError(f"{path}: is no folder, or a link to one; set {VARIABLE} to another") from error
        try:
            _check_private(os.fstat(self._fd), str(path))
        except StateError:
            self.close()
            raise

    def claim(self, uuid: str, patience_s: float = 0.2) -> int:
        """Take a GPU; nobody else gets it while a copy of the answer is open.

        Args:
            uuid: Which.
            patience_s: How long to wait for a guardian that is about to let go of it, or a look (`taken`).

        Returns:
            A file descriptor.

        Raises:
            GpuTakenError: Somebody has it.
            StateError: The file cannot be trusted.
        """
        fd = self._open(f"{uuid}.lock", os.O_RDWR | os.O_CREAT)
        if not _try_lock(fd, patience_s):
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise GpuTakenError(
                f"GPU {uuid} is controlled by another process (pid {holder}, or its guardian): "
                "stop that one first; `throttllem doctor` shows them"
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def taken(self, uuid: str) -> bool:
        """Whether somebody has a GPU at the moment."""
        try:
            os.close(self.claim(uuid))
        except GpuTakenError:
            return True
        return False

    def write(self, entry: Entry) -> None:
        """Put a GPU into the journal: after the return it is on the disk.

        Raises:
            OSError: It could not be written; then the journal is as it was.
        """
        data = {
            "version": 1,
            "ward": entry.ward.plain(),
            "driver": entry.driver.plain(),
            "guardian_pid": entry.guardian_pid,
            "guardian_started": entry.guardian_started,
            "controller_pid": entry.controller_pid,
            "written": entry.written,
        }
        name = f"{entry.ward.uuid}.json"
        with suppress(FileNotFoundError):  # of a guardian that was killed while it wrote
            os.unlink(f"{name}.new", dir_fd=self._fd)
        fd = self._open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(fd)
        os.rename(f"{name}.new", name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        os.fsync(self._fd)

    def read(self, uuid: str) -> Entry | None:
        """Look a GPU up in the journal.

        Raises:
            StateError: What is there cannot be trusted or understood.
        """
        try:
            fd = self._open(f"{uuid}.json", os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
            return _parse(file.read(65536), self.path / f"{uuid}.json")

    def uuids(self) -> list[str]:
        """The GPUs in the journal."""
        # Of the folder that was checked, wherever its path leads by now.
        with os.scandir(self._fd) as found:
            return sorted(file.name.removesuffix(".json") for file in found if file.name.endswith(".json"))

    def remove(self, uuid: str) -> None:
        """Take a GPU out of the journal."""
        with suppress(FileNotFoundError):
            os.unlink(f"{uuid}.json", dir_fd=self._fd)

    def open_log(self) -> int:
        """Open the guardians' log for appending; a long one is put aside first.

        Returns:
            A file descriptor.
        """
        fd = self._open(LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if os.fstat(fd).st_size < LOG_BYTES:
            return fd
        os.close(fd)
        os.rename(LOG_NAME, f"{LOG_NAME}.1", src_dir_fd=self._fd, dst_dir_fd=self._fd)
        return self._open(LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def close(self) -> None:
        """Close it; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, name: str, flags: int) -> int:
        """Open a file in the folder that is nobody else's and no link."""
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=self._fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise StateError(f"{self.path / name}: is no plain file")
            _check_private(found, str(self.path / name))
        except StateError:
            os.close(fd)
            raise
        return fd


def _try_lock(fd: int, patience_s: float) -> bool:
    """Lock a file, unless somebody holds it for longer than that."""
    until_s = time.monotonic() + patience_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= until_s:
            return False
        time.sleep(0.02)


def _check_private(found: os.stat_result, name: str) -> None:
    """Refuse what belongs to others, or what others can write or enter."""
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{name}: belongs to user {found.st_uid}, not {os.geteuid()}; set {VARIABLE} to another"
        )
    if found.st_mode & 0o077:
        raise StateError(
            f"{name}: others have access (mode {found.st_mode & 0o777:o}); run: chmod go= {name}"
        )


def _parse(text: str, path: Path) -> Entry:
    """Read a journal."""
    try:
        data: dict[str, Any] = json.loads(text)
        return Entry(
            Ward.from_plain(data["ward"]),
            Driver.from_plain(data["driver"]),
            int(data["guardian_pid"]),
            int(data["guardian_started"]),
            int(data["controller_pid"]),
            float(data["written"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StateError(
            f"{path}: no journal ({error!r}); run nvidia-smi -i {path.stem} -rgc, then delete it"
        ) from error


def new_entry(ward: Ward, driver: Driver, controller_pid: int) -> Entry:
    """An entry that this process, a guardian, makes now."""
    started = started_ticks(os.getpid()) or 0
    return Entry(ward, driver, os.getpid(), started, controller_pid, time.time())
