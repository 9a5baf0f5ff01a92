"""Ports on loopback: a free one, and who listens on it."""

import socket
from pathlib import Path

HOST = "127.0.0.1"
LISTEN = "0A"


def free_port(allowed: tuple[int, ...], used: set[int]) -> int:
    """A port that nobody listens on now.

    Args:
        allowed: The choice; empty for any.
        used: Those that are given away already.

    Raises:
        OSError: If all that are allowed are taken.
    """
    for port in allowed or (0,) * 8:
        if port in used:
            continue
        with socket.socket() as probe:
            # As servers bind: what lingers from a server that was stopped is no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            number = int(probe.getsockname()[1])
            if number not in used:
                return number
    raise OSError(f"no free port on {HOST}: all of {list(allowed) or 'those that were tried'} are taken")


def listens(port: int, pids: list[int]) -> bool:
    """Whether one of these processes listens on a port, rather than a stranger."""
    sockets = _listening_sockets(port)
    return bool(sockets) and any(sockets & _sockets_of(pid) for pid in pids)


def _listening_sockets(port: int) -> set[str]:
    """Inodes of the sockets that listen on a port, whatever their address."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, rows):
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets_of(pid: int) -> set[str]:
    """What a process has open."""
    try:
        return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()
