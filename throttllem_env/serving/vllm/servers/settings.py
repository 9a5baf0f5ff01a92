"""How long servers may take, and where they write."""

import math
import os
import pwd
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Bounds of a pool of servers; none of its waits is longer.

    Attributes:
        log_folder: Where each server has its log, `server-NUMBER-tpSIZE.log`, and one older file beside it.
        log_bytes: A log is begun anew at this size.
        ports: Ports that servers may listen on; empty takes any free one.
        start_timeout_s: From its start until a server says that it is well.
        warm_up_timeout_s: For its first request, which nobody waits for.
        drain_timeout_s: How long an old server may finish what it has; then its requests are told.
        stop_timeout_s: From SIGTERM until a server is killed.
        stopped_timeout_s: How long one of a server's processes may be stopped until it counts as stuck.
        stall_timeout_s: How long nothing may come of requests in flight until a server counts as stuck;
            longer than the longest iteration.
        max_restarts: Restarts after failures within `restart_window_s` before the pool gives up.
        restart_window_s: See there.
        user: Whose the servers' processes are, where we are root; None for our own.

    Raises:
        ValueError: If a value cannot be; it names the field and what would be valid.
    """

    log_folder: Path
    log_bytes: int = 8 * 2**20
    ports: tuple[int, ...] = ()
    start_timeout_s: float = 900.0
    warm_up_timeout_s: float = 120.0
    drain_timeout_s: float = 600.0
    stop_timeout_s: float = 15.0
    stopped_timeout_s: float = 3.0
    stall_timeout_s: float = 30.0
    max_restarts: int = 3
    restart_window_s: float = 600.0
    user: str | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_timeout_s")):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: expected a finite number above 0")
        if self.log_bytes < 4096:
            raise ValueError(f"log_bytes = {self.log_bytes}: expected at least 4096")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts = {self.max_restarts}: expected at least 0")
        if self.user is not None:
            require_user(self.user)
        for port in self.ports:
            if not 1 <= port <= 65535:
                raise ValueError(f"ports: {port} is none; expected 1 to 65535")


def require_user(user: str) -> None:
    """Refuse a user as whom no server can be started.

    Args:
        user: A name.

    Raises:
        ValueError: There is none of that name, or we are not root.
    """
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise ValueError(f"user = {user!r}: there is no such user on this machine") from None
    if os.geteuid():
        raise ValueError(f"user = {user!r}: only root can start servers as somebody else; leave it out")
