"""What controller and guardian say to each other: JSON in packets, over a pair of sockets without a name.

There is nothing to connect to: one end was handed to the guardian when it was started, the other is open in
the controller alone. A packet is a whole message, so a writer that is killed leaves none half.
"""

import array
import json
import socket
from typing import Any

LONGEST = 1 << 16
MOST_FILES = 64


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: dict[str, Any], files: list[int] | None = None) -> None:
    """Send a message.

    Args:
        channel: One's own end.
        message: What JSON can hold.
        files: File descriptors that the other side gets copies of.

    Raises:
        OSError: The other side is gone, or does not read (time-out of the channel).
        ValueError: It is too long.
    """
    data = json.dumps(message).encode()
    if len(data) > LONGEST:
        raise ValueError(f"message of {len(data)} bytes: at most {LONGEST}")
    socket.send_fds(channel, [data], files or [])


def receive(channel: socket.socket, flags: int = 0) -> tuple[dict[str, Any], list[int]] | None:
    """Wait for a message.

    Args:
        channel: One's own end.
        flags: Such as `socket.MSG_DONTWAIT`.

    Returns:
        The message and copies of the file descriptors sent with it; None when the other side is gone.

    Raises:
        OSError: Nothing came in time.
    """
    room = socket.CMSG_SPACE(MOST_FILES * array.array("i").itemsize)
    try:
        data, extras, _, _ = channel.recvmsg(LONGEST, room, flags | socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    files = array.array("i")
    for level, kind, content in extras:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            files.frombytes(content[: len(content) - len(content) % files.itemsize])
    return (_parse(data), list(files)) if data else None


def _parse(data: bytes) -> dict[str, Any]:
    """What a packet says; one that is no message says nothing."""
    try:
        message = json.loads(data)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
