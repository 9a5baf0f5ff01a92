"""Reading Mooncake's traces: JSON lines with times in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from throttllem_env.traces.columns import Column, elapsed_s, parse_tokens
from throttllem_env.traces.errors import TraceError, nearest_hint
from throttllem_env.traces.trace import Trace

__all__ = ["KEYS", "read_mooncake"]

KEYS: Final = ("timestamp", "input_length", "output_length")
"""Keys that each line must have; `hash_ids` (prefix blocks) is not used."""

_MS_PER_S: Final = 1000.0


def read_mooncake(path: Path) -> Trace:
    """Read a trace as published with Mooncake (kvcache-ai/Mooncake).

    Args:
        path: File with one JSON object a line; blank lines are skipped.

    Returns:
        The trace, named after the file, its first arrival at 0 s.

    Raises:
        TraceError: Naming file, line, field, value and what is accepted.
    """
    lines, rows = _read_lines(path)
    time, prompt, output = (
        Column(path.name, key, [row[i] for row in rows], lines) for i, key in enumerate(KEYS)
    )
    return Trace(
        elapsed_s(_numbers(time), time, _MS_PER_S),
        parse_tokens(_numbers(prompt), prompt),
        parse_tokens(_numbers(output), output),
        path.stem,
    )


def _read_lines(path: Path) -> tuple[NDArray[np.int64], list[tuple[Any, ...]]]:
    lines, rows = [], []
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                rows.append(_parse_line(path.name, line, text))
                lines.append(line)
    return np.array(lines, dtype=np.int64), rows


def _parse_line(file: str, line: int, text: str) -> tuple[Any, ...]:
    accepted = f"a JSON object with {', '.join(KEYS)}"
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError.at(file, line, "line", text.rstrip(), accepted) from error
    if not isinstance(record, dict):
        raise TraceError.at(file, line, "line", text.rstrip(), accepted)
    for key in KEYS:
        if key not in record:
            hint = nearest_hint(key, record)
            message = f"{file}:{line}: key {key!r} is missing{hint}: expected {accepted}"
            raise TraceError(message, file=file, line=line, field=key, accepted=accepted)
    return tuple(record[key] for key in KEYS)


def _numbers(column: Column) -> NDArray[np.float64]:
    return np.array([_number(value) for value in column.shown], dtype=np.float64)


def _number(value: object) -> float:
    # JSON's true is an int to Python, and a whole number may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    return float(value) if abs(value) < 2**63 else float("inf")
