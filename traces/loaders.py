"""Reading a trace file in any known format, recognised by its content."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from throttllem_env.traces.csv_files import read_csv
from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.mooncake import read_mooncake
from throttllem_env.traces.parquet import read_parquet
from throttllem_env.traces.trace import Trace

__all__ = ["ACCEPTED_FORMATS", "read_trace"]

ACCEPTED_FORMATS: Final = (
    "Azure 2023/2024 CSV (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT CSV (Timestamp, "
    "Request tokens, Response tokens), Mooncake JSON lines (timestamp, input_length, output_length), "
    "or Parquet written by this project"
)
"""What a trace file may be, for messages."""

_HEAD_BYTES: Final = 65536
_UTF8_TAIL: Final = 3  # a character cut by the end of the head has at most these bytes

_log = logging.getLogger(__name__)


def read_trace(path: str | Path, *, drop_failed: bool = False) -> tuple[Trace, int]:
    """Read a trace file; its format is recognised by its content, not its name.

    Args:
        path: The file.
        drop_failed: Leave out requests that the format marks as failed (BurstGPT marks
            them by 0 response tokens); without it they are an error.

    Returns:
        The trace, named after the file, and how many failed requests were left out.

    Raises:
        TraceError: Naming file, line, field, value and what is accepted.
    """
    path = Path(path)
    head = _read_head(path)
    if head.startswith(b"PAR1"):
        return read_parquet(path), 0
    if _as_text(path, head).lstrip("\ufeff \t\r\n").startswith("{"):
        return read_mooncake(path), 0
    trace, failed = read_csv(path, drop_failed=drop_failed)
    if failed:
        _log.info("%s: left out %d failed requests", path.name, failed)
    return trace, failed


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        message = f"{path}: the trace cannot be read: {error.strerror}"
        raise TraceError(message, file=path.name, value=str(path)) from error
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        message = f"{path.name}: the file is empty; accepted: {ACCEPTED_FORMATS}"
        raise TraceError(message, file=path.name, accepted=ACCEPTED_FORMATS)
    return head


def _missing(path: Path) -> TraceError:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    message = f"{path}: there is no such trace file{nearest_hint(path.name, names)}"
    return TraceError(message, file=path.name, value=str(path), accepted=ACCEPTED_FORMATS)


def _as_text(path: Path, head: bytes) -> str:
    message = f"{path.name}: the file is binary, not a trace; accepted: {ACCEPTED_FORMATS}"
    binary = TraceError(message, file=path.name, accepted=ACCEPTED_FORMATS)
    if b"\0" in head:
        raise binary
    try:
        return head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) == _HEAD_BYTES and error.start >= len(head) - _UTF8_TAIL:
            return head[: error.start].decode("utf-8")
        raise binary from error
