"""This project's own file format: Parquet with three columns and a little metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.columns import Column, parse_tokens
from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "FORMAT_VERSION", "read_parquet", "write_parquet"]

COLUMNS: Final = ("arrival_s", "prompt_tokens", "output_tokens")
"""Columns of the file: float64, int64, int64, none of them null."""

FORMAT_VERSION: Final = "1"
"""Version of the layout, kept in the metadata; a reader refuses others."""

_VERSION_KEY, _NAME_KEY, _DURATION_KEY = (
    f"throttllem.trace.{key}".encode() for key in ("version", "name", "duration_s")
)


def write_parquet(trace: Trace, path: str | Path) -> None:
    """Write a trace so that reading it back gives an equal one, name included.

    Args:
        trace: What to write.
        path: The file, overwritten when it is there.

    Raises:
        OSError: If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {
        _VERSION_KEY: FORMAT_VERSION.encode(),
        _NAME_KEY: trace.name.encode(),
        _DURATION_KEY: trace.duration_s.hex().encode(),  # hex: exact
    }
    types = (pa.float64(), pa.int64(), pa.int64())
    fields = [pa.field(name, kind, nullable=False) for name, kind in zip(COLUMNS, types, strict=True)]
    arrays = [pa.array(getattr(trace, name)) for name in COLUMNS]
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata)), str(path))


def read_parquet(path: Path) -> Trace:
    """Read a trace that `write_parquet` wrote; times are kept as they are.

    Args:
        path: The file.

    Returns:
        The trace.

    Raises:
        TraceError: If it is not such a file, or a value in it is not valid; `line` is
            then the row, from 1.
    """
    table = _read_table(path)
    metadata = _checked_metadata(path, table)
    values = [_column(path, table, name) for name in COLUMNS]
    if len(table) == 0:
        raise TraceError(f"{path.name}: the file has no requests", file=path.name)
    rows = np.arange(len(table), dtype=np.int64) + 1
    arrival, prompt, output = (
        Column(path.name, name, found, rows) for name, found in zip(COLUMNS, values, strict=True)
    )
    early = ~(np.isfinite(values[0]) & (values[0] >= 0))
    early[1:] |= np.diff(values[0]) < 0
    arrival.reject_first(early, "a finite time >= 0, not before that of the row above")
    duration_s = _duration(path, metadata[_DURATION_KEY], float(values[0][-1]))
    tokens = parse_tokens(values[1], prompt), parse_tokens(values[2], output)
    return Trace(values[0], *tokens, metadata[_NAME_KEY].decode(), duration_s)


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(str(path))
    except (pa.ArrowException, OSError) as error:
        raise TraceError(f"{path.name}: not a readable Parquet file: {error}", file=path.name) from error


def _checked_metadata(path: Path, table: pa.Table) -> dict[bytes, bytes]:
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    version = metadata.get(_VERSION_KEY, b"").decode(errors="replace")
    if version != FORMAT_VERSION or _NAME_KEY not in metadata or _DURATION_KEY not in metadata:
        accepted = f"{FORMAT_VERSION!r}, with a name and a duration: write the file with write_parquet"
        raise TraceError.at(path.name, None, _VERSION_KEY.decode(), version, accepted)
    return metadata


def _column(path: Path, table: pa.Table, name: str) -> NDArray[np.float64]:
    if name not in table.column_names:
        hint = nearest_hint(name, table.column_names)
        accepted = f"columns {', '.join(COLUMNS)}"
        message = f"{path.name}: column {name!r} is missing{hint}; the columns here are {table.column_names}"
        raise TraceError(message, file=path.name, field=name, value=table.column_names, accepted=accepted)
    found: Any = table.column(name).to_numpy()
    if found.dtype.kind not in "fiu":
        raise TraceError.at(path.name, None, name, str(found.dtype), "a column of numbers")
    # Lengths above 2**53 would not survive, but those are refused anyhow.
    return np.asarray(found, dtype=np.float64)


def _duration(path: Path, text: bytes, last_s: float) -> float:
    accepted = f"a finite time in hex, at least the last arrival ({last_s} s)"
    try:
        duration_s = float.fromhex(text.decode())
    except ValueError as error:
        raise TraceError.at(path.name, None, "duration_s", text, accepted) from error
    if not last_s <= duration_s < np.inf:
        raise TraceError.at(path.name, None, "duration_s", duration_s, accepted)
    return duration_s
